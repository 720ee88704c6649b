import net, { type LookupFunction, type Socket } from 'node:net'
import { PosternError } from '@postern/shared/errors'
import { lookupHost } from '@postern/shared/lookup-host'
import { SOCKET_BUFFER_BYTES } from '../tunnel/dial-edge.ts'
import type { Target } from './target.ts'

export const SERVICE_DIAL_TIMEOUT_MS = 10_000
const KEEPALIVE_MS = 30_000
/** For each of several addresses. Node's own 250 ms are over before the event loop of a busy connector has looked at
 *  a connection that stands: the service was then called refused, because nothing listens on `::1`. */
const ATTEMPT_TIMEOUT_MS = 4_000

/** Connects to the service, with half-close.
 *  @throws SERVICE_REFUSED when its machine says no · SERVICE_UNREACHABLE for everything else */
export function dialService(target: Target, signal?: AbortSignal): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const options = {
      ...target,
      lookup: lookupService,
      autoSelectFamily: true,
      autoSelectFamilyAttemptTimeout: ATTEMPT_TIMEOUT_MS,
      allowHalfOpen: true,
      noDelay: true,
      keepAlive: true,
      keepAliveInitialDelay: KEEPALIVE_MS,
      highWaterMark: SOCKET_BUFFER_BYTES,
    }
    const socket = net.connect(options)
    const settle = () => {
      clearTimeout(timer)
      signal?.removeEventListener('abort', onAbort)
    }
    const fail = (cause: unknown) => {
      settle()
      socket.destroy()
      reject(explainDialError(cause))
    }
    const onAbort = () => fail(signal!.reason)
    const timer = setTimeout(() => fail(new Error('no answer in time')), SERVICE_DIAL_TIMEOUT_MS)
    socket.once('error', fail)
    socket.once('connect', () => {
      settle()
      socket.off('error', fail)
      resolve(socket)
    })
    if (signal?.aborted) onAbort()
    else signal?.addEventListener('abort', onAbort)
  })
}

/** `localhost` may listen on either loopback address; both are tried. */
const lookupService: LookupFunction = (hostname, options, callback) => {
  lookupHost(hostname, options, (error, address, family) => {
    const loopback = Array.isArray(address) && address.length === 1 && address[0]?.address === '127.0.0.1'
    if (error || !loopback) return callback(error, address, family)
    callback(null, [...address, { address: '::1', family: 6 }])
  })
}

function explainDialError(cause: unknown): PosternError {
  if (cause instanceof PosternError) return cause
  const { code, errors } = cause as { code?: string; errors?: { code?: string }[] }
  // a socket whose service has gone is there and refuses, or is not there
  const refused =
    code === 'ECONNREFUSED' || code === 'ENOENT' || errors?.some((error) => error.code === 'ECONNREFUSED')
  return refused
    ? new PosternError('SERVICE_REFUSED', 'the service refused the connection', { cause })
    : new PosternError('SERVICE_UNREACHABLE', 'the service does not answer', { cause })
}
