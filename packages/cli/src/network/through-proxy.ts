import type { Socket } from 'node:net'
import { PosternError } from '@postern/shared/errors'
import { describeFailure } from '../api/network-error.ts'
import { chooseProxy, type ProxyServer } from './choose-proxy.ts'
import { askHttpProxy } from './http-proxy.ts'
import { connectTcp, type OpenOptions, type Place } from './open-tcp.ts'
import { describeProxy, ProxyTalk } from './proxy-talk.ts'
import { askSocksProxy } from './socks-proxy.ts'

/** The way through a proxy. Loaded only where one is named. */

/** Shorter than what a connection to the edge may take: so it is the proxy that is named as not answering. */
const PROXY_TIMEOUT_MS = 8_000

/** A connection to the place, as if it were a direct one.
 *  @returns undefined where no proxy applies
 *  @throws PROXY_UNREACHABLE · PROXY_LOGIN_REQUIRED · PROXY_REFUSED · PROXY_INVALID · USAGE_INVALID */
export async function openThroughProxy(place: Place, options: OpenOptions): Promise<Socket | undefined> {
  const proxy = chooseProxy(place, process.env)
  if (!proxy) return undefined
  const timeout = AbortSignal.timeout(PROXY_TIMEOUT_MS)
  const signal = options.signal ? AbortSignal.any([options.signal, timeout]) : timeout
  let socket: Socket | undefined
  try {
    socket = await connectTcp(proxy, { ...options, signal })
    await ask(new ProxyTalk(socket, proxy, signal), proxy, place)
    return socket
  } catch (cause) {
    socket?.destroy()
    options.signal?.throwIfAborted()
    if (cause instanceof PosternError) throw cause
    const reason = timeout.aborted ? 'it does not answer' : describeFailure(cause as Error)
    throw new PosternError('PROXY_UNREACHABLE', `cannot reach ${describeProxy(proxy)}: ${reason}`, { cause })
  }
}

function ask(talk: ProxyTalk, proxy: ProxyServer, place: Place): Promise<void> {
  return proxy.kind === 'http' ? askHttpProxy(talk, proxy, place) : askSocksProxy(talk, proxy, place)
}
