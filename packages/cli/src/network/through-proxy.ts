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

const WITHOUT_TLS =
  'it takes connections, but no TLS on them: a proxy that is spoken to without is written http://HOST:PORT'

/** A connection to the place, as if it were a direct one.
 *  @returns undefined where no proxy applies
 *  @throws PROXY_UNREACHABLE · PROXY_LOGIN_REQUIRED · PROXY_REFUSED · PROXY_INVALID · PROXY_UNTRUSTED ·
 *  USAGE_INVALID */
export async function openThroughProxy(place: Place, options: OpenOptions): Promise<Socket | undefined> {
  const proxy = chooseProxy(place, process.env)
  if (!proxy) return undefined
  const timeout = AbortSignal.timeout(PROXY_TIMEOUT_MS)
  const signal = options.signal ? AbortSignal.any([options.signal, timeout]) : timeout
  let tcp: Socket | undefined
  let socket: Socket | undefined
  try {
    tcp = await connectTcp(proxy, { ...options, signal })
    socket = proxy.kind === 'https' ? await startTls(tcp, proxy, signal) : tcp
    await ask(new ProxyTalk(socket, proxy, signal), proxy, place)
    return socket
  } catch (cause) {
    tcp?.destroy()
    options.signal?.throwIfAborted()
    if (cause instanceof PosternError) throw cause
    const reason = timeout.aborted ? 'it does not answer' : describeFailure(cause as Error)
    throw new PosternError('PROXY_UNREACHABLE', `cannot reach ${describeProxy(proxy)}: ${reason}`, {
      cause,
      ...(tcp && !socket ? { hint: WITHOUT_TLS } : {}),
    })
  }
}

async function startTls(tcp: Socket, proxy: ProxyServer, signal: AbortSignal): Promise<Socket> {
  const { startProxyTls } = await import('./proxy-tls.ts')
  return startProxyTls(tcp, proxy, signal)
}

function ask(talk: ProxyTalk, proxy: ProxyServer, place: Place): Promise<void> {
  return proxy.kind === 'socks5' ? askSocksProxy(talk, proxy, place) : askHttpProxy(talk, proxy, place)
}
