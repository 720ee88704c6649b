import type { Duplex } from 'node:stream'
import { PosternError } from '../errors.ts'
import { readErrorFrame } from '../protocol/error-frame.ts'
import {
  type ControlType,
  dataHeader,
  END_FRAME,
  encodeControl,
  FRAME_HEADER_BYTES,
  FrameDecoder,
  MAX_PAYLOAD_BYTES,
} from '../protocol/frames.ts'
import { BusyReader } from './busy-reader.ts'
import type { FlowEnd, Receiver } from './flow-end.ts'
import { JoinedWrites, SMALL_BYTES } from './joined-writes.ts'
import type { Lender } from './slab-reader.ts'

/** How long an error frame may wait for a peer that does not read or close, before the connection is destroyed. */
const ABORT_GRACE_MS = 500

/** How long a peer may keep a connection open after both end frames have passed. */
const CLOSE_GRACE_MS = 10_000

/** A connection that speaks the frames of `protocol/frames.ts`. Owns the socket from construction on: closes it
 *  when both end frames have passed, destroys it when the peer breaks the protocol or goes away. */
export class FramedEnd implements FlowEnd {
  readonly #socket: Duplex
  readonly #writes: JoinedWrites
  readonly #reader: BusyReader
  readonly #decoder: FrameDecoder
  readonly #flowId: string | undefined
  #receiver: Receiver | undefined
  #bytesRead = 0
  #sentEnd = false
  #endFlushed = false
  #receivedEnd = false
  /** Nothing more is told to the receiver: both directions ended, or the flow was cut or aborted. */
  #over = false
  #isAborting = false
  #cutError: PosternError | undefined

  /** @param socket must allow half-open, or the reply after the peer's end is lost
   *  @param flowId goes into an error frame, for who wants to know more */
  constructor(socket: Duplex, flowId?: string) {
    this.#socket = socket
    this.#flowId = flowId
    this.#writes = new JoinedWrites(socket)
    this.#decoder = new FrameDecoder({
      data: (bytes, lender) => this.#onData(bytes, lender),
      end: () => this.#onEnd(),
      control: (type, body) => this.#onControl(type, body),
    })
    socket.pause()
    this.#reader = new BusyReader(socket, (chunk, lender) => this.#onChunk(chunk, lender))
    socket.on('drain', () => this.#receiver?.drain())
    socket.on('end', () => {
      this.#reader.flush()
      // a peer that has seen our end may close before we hear that it was flushed
      if (!(this.#sentEnd && this.#receivedEnd)) this.#lost()
    })
    socket.on('close', () => this.#lost())
    socket.on('error', (cause: Error) => this.#lost(cause))
  }

  /** True once the connection can carry nothing any more. */
  get closed(): boolean {
    return this.#over || this.#socket.destroyed
  }

  /** Everything the peer has sent, frames of all types with their headers. */
  get bytesRead(): number {
    return this.#bytesRead
  }

  receive(receiver: Receiver): void {
    this.#receiver = receiver
    if (this.#cutError) queueMicrotask(receiver.cut.bind(receiver, this.#cutError))
  }

  write(bytes: Buffer, lender?: Lender): boolean {
    if (this.closed) return true
    if (bytes.length > MAX_PAYLOAD_BYTES) {
      this.write(bytes.subarray(0, MAX_PAYLOAD_BYTES), lender)
      return this.write(bytes.subarray(MAX_PAYLOAD_BYTES), lender)
    }
    if (bytes.length <= SMALL_BYTES - FRAME_HEADER_BYTES) {
      const isRoomLeft = this.#writes.writeWhole(Buffer.concat([dataHeader(bytes.length), bytes]))
      lender?.borrow()() // they were copied
      return isRoomLeft
    }
    this.#writes.write(dataHeader(bytes.length))
    return this.#writes.write(bytes, lender?.borrow())
  }

  /** Sends an ok, hello or open frame. */
  send(type: Exclude<ControlType, 'error'>, body: object): void {
    if (!this.closed) this.#writes.write(encodeControl(type, body))
  }

  end(flushed: () => void): void {
    if (this.#sentEnd || this.closed) return
    this.#sentEnd = true
    this.#writes.write(END_FRAME, (error) => {
      if (error) return // 'error' and 'close' tell
      flushed()
      this.#finishWhenBothEnded(true)
    })
  }

  pause(): void {
    this.#socket.pause()
  }

  resume(): void {
    this.#socket.resume()
  }

  abort(error: PosternError): void {
    if (this.#isAborting) return // the first reason is on its way, and destroying would cut it off
    if (this.closed) return void this.#socket.destroy()
    this.#over = true
    this.#isAborting = true
    const { code, message, hint } = error
    this.#socket.end(encodeControl('error', { code, message, hint, flowId: this.#flowId }))
    // Closing with unread bytes would send a reset, and a peer in the middle of writing would see that reset
    // before our error frame: so what still arrives is read and dropped until the peer closes.
    this.#socket.resume()
    this.#destroyAfter(ABORT_GRACE_MS)
  }

  #onChunk(chunk: Buffer, lender?: Lender): void {
    this.#bytesRead += chunk.length
    if (this.#over) return
    try {
      this.#decoder.push(chunk, lender)
    } catch (error) {
      this.#violated(error as PosternError)
    }
  }

  #onData(bytes: Buffer, lender?: Lender): void {
    if (this.#over) return
    if (this.#receivedEnd) throw new PosternError('PROTOCOL_INVALID', 'bytes follow the end frame')
    this.#receiver?.chunk(bytes, lender)
  }

  #onEnd(): void {
    if (this.#over) return
    if (this.#receivedEnd) throw new PosternError('PROTOCOL_INVALID', 'a second end frame arrived')
    this.#receivedEnd = true
    this.#receiver?.end()
    this.#finishWhenBothEnded(false)
  }

  #onControl(type: ControlType, body: unknown): void {
    if (this.#over) return
    if (type !== 'error') return this.#receiver?.control?.(type, body)
    this.#cut(readErrorFrame(body))
  }

  #finishWhenBothEnded(endFlushed: boolean): void {
    this.#endFlushed ||= endFlushed
    if (!this.#endFlushed || !this.#receivedEnd || this.#over) return
    this.#over = true
    this.#socket.end()
    this.#socket.resume() // reads up to the peer's close, so that the socket is freed
    this.#destroyAfter(CLOSE_GRACE_MS)
  }

  #destroyAfter(graceMs: number): void {
    const timer = setTimeout(() => this.#socket.destroy(), graceMs)
    this.#socket.once('close', () => clearTimeout(timer))
  }

  #lost(cause?: Error): void {
    this.#reader.flush()
    if (!this.#over)
      this.#cut(new PosternError('FLOW_CUT', 'the connection ended in the middle of the flow', { cause }))
  }

  #violated(error: PosternError): void {
    this.abort(error)
    this.#tellCut(error)
  }

  #cut(error: PosternError): void {
    this.#over = true
    this.#socket.destroy()
    this.#tellCut(error)
  }

  #tellCut(error: PosternError): void {
    this.#cutError = error
    this.#receiver?.cut(error)
  }
}
