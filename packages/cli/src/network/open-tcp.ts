import { once } from 'node:events'
import net, { type Socket } from 'node:net'
import { lookupHost } from '@postern/shared/lookup-host'

/** Every connection to the edge begins here: straight, or through the proxy of this network. TLS comes later and is the
 *  same either way: a proxy carries bytes and is trusted with nothing. */

/** What is to be reached. A proxy looks the name up itself. */
export interface Place {
  host: string
  port: number
}

export interface OpenOptions {
  signal?: AbortSignal | undefined
  /** Left out: the connection ends when its peer has ended, as HTTP expects. */
  allowHalfOpen?: boolean
}

const KEEPALIVE_MS = 30_000
/** For each of several addresses. Node's 250 ms are too few for a busy process or a slow network. */
const ATTEMPT_TIMEOUT_MS = 1_000
/** Any of them may name a proxy. Without one nothing about proxies is loaded. */
const PROXY_VARIABLES = ['POSTERN_PROXY', 'HTTPS_PROXY', 'https_proxy', 'ALL_PROXY', 'all_proxy']

/** @throws PROXY_* · USAGE_INVALID about the proxy's address · Node's own errors · the reason of the signal */
export async function openTcp(place: Place, options: OpenOptions = {}): Promise<Socket> {
  if (PROXY_VARIABLES.some((name) => process.env[name])) {
    const { openThroughProxy } = await import('./through-proxy.ts')
    const socket = await openThroughProxy(place, options)
    if (socket) return socket
  }
  return connectTcp(place, options)
}

/** Without a proxy. Tries all addresses of both families, one after the other begun (RFC 8305). */
export async function connectTcp(
  { host, port }: Place,
  { signal, allowHalfOpen = false }: OpenOptions = {},
): Promise<Socket> {
  signal?.throwIfAborted()
  const socket = net.connect({
    host,
    port,
    allowHalfOpen,
    noDelay: true,
    keepAlive: true,
    keepAliveInitialDelay: KEEPALIVE_MS,
    autoSelectFamily: true,
    autoSelectFamilyAttemptTimeout: ATTEMPT_TIMEOUT_MS,
    lookup: lookupHost,
  })
  socket.on('error', () => undefined) // whoever waits for it hears of it; afterwards the stream over it tells
  try {
    await once(socket, 'connect', signal ? { signal } : {})
    return socket
  } catch (error) {
    socket.destroy()
    signal?.throwIfAborted()
    throw error
  }
}
