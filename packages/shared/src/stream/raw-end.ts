import type { Readable, Writable } from 'node:stream'
import { PosternError } from '../errors.ts'
import { BusyReader } from './busy-reader.ts'
import type { FlowEnd, Receiver } from './flow-end.ts'
import { JoinedWrites } from './joined-writes.ts'
import type { Lender } from './slab-reader.ts'

/** A stream without frames: the service's TCP connection, a plain TLS client, stdin with stdout. End of file is
 *  the half-close; there is no telling a clean one from a network attacker's bare FIN. */
export class RawEnd implements FlowEnd {
  readonly #input: Readable
  readonly #output: Writable
  readonly #writes: JoinedWrites
  readonly #reader: BusyReader
  readonly #reset: () => void
  #receiver: Receiver | undefined
  #inputEnded = false
  #closed = false
  #cutError: PosternError | undefined

  /** @param reset ends the connection so that its peer sees a reset, not an end of file: see `resetSocket` */
  constructor(input: Readable, output: Writable, reset: () => void) {
    this.#input = input
    this.#output = output
    this.#writes = new JoinedWrites(output)
    this.#reset = reset
    input.pause()
    this.#reader = new BusyReader(input, (bytes, lender) => {
      if (!this.#closed) this.#receiver?.chunk(bytes, lender)
    })
    input.on('end', () => {
      this.#reader.flush()
      if (this.#closed) return
      this.#inputEnded = true
      this.#receiver?.end()
    })
    output.on('drain', () => this.#receiver?.drain())
    for (const stream of new Set([input, output])) stream.on('error', (cause: Error) => this.#lost(cause))
    input.on('close', () => {
      if (!this.#inputEnded) this.#lost()
    })
    output.on('close', () => {
      if (!output.writableFinished) this.#lost()
    })
  }

  receive(receiver: Receiver): void {
    this.#receiver = receiver
    if (this.#cutError) queueMicrotask(receiver.cut.bind(receiver, this.#cutError))
  }

  write(bytes: Buffer, lender?: Lender): boolean {
    return this.#closed ? true : this.#writes.writeWhole(bytes, lender?.borrow())
  }

  end(flushed: () => void): void {
    if (this.#closed) return
    this.#output.end((error?: Error | null) => {
      if (!error) flushed()
    })
  }

  pause(): void {
    this.#input.pause()
  }

  resume(): void {
    this.#input.resume()
  }

  abort(_error: PosternError): void {
    this.#closed = true
    this.#reset()
  }

  #lost(cause?: Error): void {
    this.#reader.flush()
    if (this.#closed) return
    this.#closed = true
    this.#reset()
    this.#cutError = new PosternError('FLOW_CUT', 'the connection was lost in the middle of the flow', {
      cause,
    })
    this.#receiver?.cut(this.#cutError)
  }
}
