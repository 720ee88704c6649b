import { Duplex } from 'node:stream'
import { MAX_TRANSPORT_MESSAGE_BYTES, TRANSPORT_END } from '../protocol/transport.ts'

/** What a stream needs of a WebSocket, as the package `ws` has it. */
export interface MessageSocket {
  on(event: 'message', listener: (data: unknown, isBinary: boolean) => void): unknown
  on(event: 'error', listener: (error: Error) => void): unknown
  on(event: 'close', listener: () => void): unknown
  send(data: Buffer | string, done: (error?: Error) => void): void
  pause(): void
  resume(): void
  close(code: number): void
  terminate(): void
}

const NORMAL = 1000

/** The bytes of a WebSocket as a stream with half-close: binary messages are bytes, the text `end` is the end of its
 *  direction. Whatever else comes, and a WebSocket that closes before both have ended, closes the stream without its end.
 *  It never says `error`: TLS over it passes that on when nobody listens any more, and the process would end. */
export class MessageStream extends Duplex {
  readonly #ws: MessageSocket
  #receivedEnd = false
  #sentEnd = false

  /** @param ws open, and owned from here on */
  constructor(ws: MessageSocket) {
    super({ allowHalfOpen: true })
    this.#ws = ws
    ws.on('message', (data, isBinary) => this.#onMessage(data as Buffer, isBinary))
    ws.on('error', () => this.destroy())
    ws.on('close', () => this.destroy())
  }

  override _read(): void {
    this.#ws.resume()
  }

  override _write(bytes: Buffer, encoding: BufferEncoding, done: () => void): void {
    const later = bytes.subarray(MAX_TRANSPORT_MESSAGE_BYTES)
    this.#send(bytes.subarray(0, MAX_TRANSPORT_MESSAGE_BYTES), () => {
      if (later.length === 0) done()
      else this._write(later, encoding, done)
    })
  }

  override _final(done: () => void): void {
    this.#send(TRANSPORT_END, () => {
      this.#sentEnd = true
      done()
    })
  }

  override _destroy(_error: Error | null, done: () => void): void {
    if (this.#receivedEnd && this.#sentEnd) this.#ws.close(NORMAL)
    else this.#ws.terminate()
    done()
  }

  #send(message: Buffer | string, sent: () => void): void {
    this.#ws.send(message, (error) => {
      if (error) this.destroy()
      else sent()
    })
  }

  #onMessage(data: Buffer, isBinary: boolean): void {
    if (this.#receivedEnd) return void this.destroy()
    if (isBinary) {
      if (data.length > 0 && !this.push(data)) this.#ws.pause()
      return
    }
    if (String(data) !== TRANSPORT_END) return void this.destroy()
    this.#receivedEnd = true
    this.push(null)
  }
}
