import type { TLSSocket } from 'node:tls'
import { FramedEnd } from '@postern/shared/stream/framed-end'
import type { EdgeProcess } from './edge-process.ts'
import { dial, type KeyAndCertificate } from './tls-peer.ts'

/** A flow to an echo service that stays open: a person who works while something happens to the edge. */
export class HeldFlow implements Disposable {
  readonly #socket: TLSSocket
  readonly #end: FramedEnd
  #heard = ''
  #listener: () => void = () => {}
  #failure: Error | undefined

  constructor(edge: EdgeProcess, host: string, identity: KeyAndCertificate) {
    this.#socket = dial(edge, { serverName: host, alpn: 'postern/1', identity })
    this.#socket.on('error', (error) => this.#fail(error))
    this.#end = new FramedEnd(this.#socket)
    this.#end.receive({
      chunk: (chunk) => {
        this.#heard += chunk
        this.#listener()
      },
      end: () => this.#fail(new Error('the flow ended')),
      drain: () => {},
      cut: (error) => this.#fail(error),
    })
    this.#end.resume()
  }

  /** Sends the text and waits until it has come back. */
  echo(text: string): Promise<void> {
    this.#heard = ''
    return new Promise((resolve, reject) => {
      this.#listener = () => {
        if (this.#failure) reject(this.#failure)
        else if (this.#heard === text) resolve()
      }
      this.#listener()
      this.#end.write(Buffer.from(text))
    })
  }

  #fail(error: Error): void {
    this.#failure ??= error
    this.#listener()
  }

  [Symbol.dispose](): void {
    this.#socket.destroy()
  }
}
