import net, { type LookupFunction, type Socket } from 'node:net'
import { PosternError } from '@postern/shared/errors'
import { lookupHost } from '@postern/shared/lookup-host'
import { SOCKET_BUFFER_BYTES } from '../tunnel/dial-edge.ts'
import { describeTarget, type Target } from './target.ts'

export const SERVICE_DIAL_TIMEOUT_MS = 10_000
const KEEPALIVE_MS = 30_000
const NO_ANSWER = `no answer within ${SERVICE_DIAL_TIMEOUT_MS / 1_000} s`
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
      reject(explainDialError(target, cause))
    }
    const onAbort = () => fail(signal!.reason)
    const timer = setTimeout(() => fail(new Error(NO_ANSWER)), SERVICE_DIAL_TIMEOUT_MS)
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

/** What was found where, for the people of this machine. The edge, and who comes, never hear where the service is: of an
 *  error they are told the message. */
export function whatWasFound({ details }: PosternError): string | undefined {
  return typeof details?.found === 'string' ? details.found : undefined
}

function explainDialError(target: Target, cause: unknown): PosternError {
  if (cause instanceof PosternError) return cause
  const { code: own, errors, message } = cause as NodeJS.ErrnoException & { errors?: NodeJS.ErrnoException[] }
  // of several addresses: one that says no says more than one that is silent
  const code = errors?.some((error) => error.code === 'ECONNREFUSED') ? 'ECONNREFUSED' : own
  const reasons = 'path' in target ? SOCKET_REASONS : PORT_REASONS
  const found = `${describeTarget(target)}: ${reasons[code ?? ''] ?? message}`
  // a socket whose service has gone is there and refuses, or is not there
  return code === 'ECONNREFUSED' || code === 'ENOENT'
    ? new PosternError('SERVICE_REFUSED', 'the service refused the connection', { cause, details: { found } })
    : new PosternError('SERVICE_UNREACHABLE', 'the service does not answer', { cause, details: { found } })
}

const PORT_REASONS: Readonly<Record<string, string>> = {
  ECONNREFUSED: 'nothing listens there',
  ENOTFOUND: 'this machine knows no address of that name',
  EAI_AGAIN: 'this machine cannot look up names now',
  EHOSTUNREACH: 'no way leads there',
  ENETUNREACH: 'no way leads there',
  ETIMEDOUT: NO_ANSWER,
}

const SOCKET_REASONS: Readonly<Record<string, string>> = {
  ECONNREFUSED: 'nothing listens there, or it is no socket',
  ENOENT: 'there is no such file',
  EACCES: 'this user may not open it',
  EPERM: 'this user may not open it',
}
