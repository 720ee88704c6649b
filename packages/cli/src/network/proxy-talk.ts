import type { Socket } from 'node:net'
import { PosternError } from '@postern/shared/errors'
import type { ProxyServer } from './choose-proxy.ts'

/** What bytes of a proxy mean: not all there yet, nothing that a proxy says, or an answer and how long it is. */
export type ReadAnswer<T> = 'incomplete' | 'malformed' | { answer: T; bytes: number }

/** Questions and answers before the way through a proxy is open. Its readers say `malformed` before an answer grows
 *  large, so nothing here does. */
export class ProxyTalk {
  readonly #socket: Socket
  readonly #proxy: ProxyServer
  readonly #signal: AbortSignal

  constructor(socket: Socket, proxy: ProxyServer, signal: AbortSignal) {
    this.#socket = socket
    this.#proxy = proxy
    this.#signal = signal
  }

  /** Sends, and reads one whole answer. Nothing may follow it: the edge is silent until it is spoken to.
   *  @throws PROXY_INVALID · Node's own errors · the reason of the signal */
  async ask<T>(question: Buffer, read: (bytes: Buffer) => ReadAnswer<T>): Promise<T> {
    this.#socket.write(question)
    let bytes: Buffer = Buffer.alloc(0)
    for (;;) {
      const result = read(bytes)
      if (result === 'malformed') throw this.#invalid('answers with something that no proxy says')
      if (result !== 'incomplete') {
        if (result.bytes === bytes.length) return result.answer
        throw this.#invalid('says more than it was asked')
      }
      bytes = Buffer.concat([bytes, await this.#nextChunk()])
    }
  }

  #nextChunk(): Promise<Buffer> {
    const socket = this.#socket
    const signal = this.#signal
    const { promise, resolve, reject } = Promise.withResolvers<Buffer>()
    const onReadable = () => {
      const chunk: Buffer | null = socket.read()
      if (chunk !== null) resolve(chunk)
    }
    const onGone = (error?: Error | boolean) =>
      reject(error instanceof Error ? error : Object.assign(new Error('closed'), { code: 'ECONNRESET' }))
    const onAbort = () => reject(signal.reason)
    const events = [
      ['readable', onReadable],
      ['end', onGone],
      ['error', onGone],
      ['close', onGone],
    ] as const
    for (const [event, listener] of events) socket.on(event, listener)
    signal.addEventListener('abort', onAbort)
    if (signal.aborted) onAbort()
    else if (socket.destroyed) onGone()
    return promise.finally(() => {
      for (const [event, listener] of events) socket.off(event, listener)
      signal.removeEventListener('abort', onAbort)
    })
  }

  #invalid(what: string): PosternError {
    return new PosternError('PROXY_INVALID', `${describeProxy(this.#proxy)} ${what}`)
  }
}

/** Without what it wants to know. */
export function describeProxy({ kind, host, port }: ProxyServer): string {
  const shown = host.includes(':') ? `[${host}]` : host
  return `the ${SHOWN_KINDS[kind]} proxy ${shown}:${port}`
}

const SHOWN_KINDS: Readonly<Record<ProxyServer['kind'], string>> = {
  http: 'HTTP',
  https: 'HTTPS',
  socks5: 'SOCKS',
}

/** It wants to know who this is, or does not believe it. */
export function loginRequired(proxy: ProxyServer): PosternError {
  return new PosternError(
    'PROXY_LOGIN_REQUIRED',
    proxy.credentials
      ? `${describeProxy(proxy)} does not accept this user name and password`
      : `${describeProxy(proxy)} wants a user name and a password`,
  )
}
