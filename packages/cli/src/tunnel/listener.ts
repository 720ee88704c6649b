import { once } from 'node:events'
import net, { type AddressInfo, type Server, type Socket } from 'node:net'
import { type ErrorCode, PosternError, toPosternError } from '@postern/shared/errors'
import { RawEnd } from '@postern/shared/stream/raw-end'
import { resetSocket } from '@postern/shared/stream/reset-socket'
import type { Traffic } from '@postern/shared/stream/splice'
import { withOrigin } from '../credentials/known-edge.ts'
import type { LiveCertificate } from '../credentials/live-certificate.ts'
import { SOCKET_BUFFER_BYTES, type Trust } from './dial-edge.ts'
import { HeldEnd } from './held-end.ts'
import type { Report } from './listener-events.ts'
import { type Endpoint, findLocalUser, isLoopback } from './local-user.ts'
import { dialService, joinService, type ServicePlace, spoilsCertificate } from './service-flow.ts'

/** A local port that is a service: each connection of a program of this machine becomes a flow of its own. What
 *  goes wrong reaches that program as a reset, never as an end of file. */

export interface ListenerParts {
  place: ServicePlace
  certificate: LiveCertificate<Trust>
  /** Serves programs of every user. Without it those of this process's own, where the system can tell. */
  unsafeAnyLocalUser: boolean
  report: Report
  /** Aborts when it is to end: connections that run are reset. */
  signal: AbortSignal
}

const KEEPALIVE_MS = 30_000
/** How long a local program may take to see its reset before the process ends. */
const LEAVE_MS = 2_000
/** Refused users are told of once in this time: who may not use the port must not fill the log either. */
const TELL_REFUSED_EVERY_MS = 10_000

/** @param local port 0 takes any free one
 *  @throws LISTEN_FAILED when the address cannot be had */
export async function openListener(local: Endpoint): Promise<Server> {
  const server = net.createServer({
    allowHalfOpen: true,
    pauseOnConnect: true,
    noDelay: true,
    keepAlive: true,
    keepAliveInitialDelay: KEEPALIVE_MS,
    highWaterMark: SOCKET_BUFFER_BYTES,
  })
  server.listen({ host: local.address, port: local.port })
  try {
    await once(server, 'listening')
    return server
  } catch (cause) {
    throw explainListenError(cause as NodeJS.ErrnoException, local)
  }
}

/** Serves until its signal aborts. Connections that come before there is a certificate wait for it.
 *  @throws why there is none to begin with */
export async function serveListener(server: Server, parts: ListenerParts): Promise<void> {
  const { place, certificate, report, signal } = parts
  const refuseUser = parts.unsafeAnyLocalUser ? () => false : createUserGuard(report)
  const sockets = new Set<Socket>()
  server.on('connection', (socket: Socket) => {
    if (refuseUser(socket)) return
    sockets.add(socket)
    socket.once('close', () => sockets.delete(socket))
    void serveConnection(socket, parts)
  })
  try {
    await certificate.takeFirst(signal)
    const { address, port } = server.address() as AddressInfo
    report({ event: 'ready', host: place.host, address, port, edge: place.edge.origin })
    if (!signal.aborted) await once(signal, 'abort')
  } catch (error) {
    if (!signal.aborted) throw error
  } finally {
    await closeListener(server, sockets)
  }
}

/** A process that ends before its resets are sent leaves ends of file behind. */
async function closeListener(server: Server, sockets: ReadonlySet<Socket>): Promise<void> {
  server.close()
  const closed = [...sockets].map((socket) => once(socket, 'close'))
  await Promise.race([Promise.all(closed), new Promise((resolve) => setTimeout(resolve, LEAVE_MS).unref())])
}

/** @returns what resets connections of other users, and says whether it did */
function createUserGuard(report: Report): (socket: Socket) => boolean {
  const ownUser = process.geteuid?.()
  if (process.platform !== 'linux' || ownUser === undefined) return () => false
  let connections = 0
  let toldAt = Number.NEGATIVE_INFINITY
  return (socket) => {
    const reason = explainForeignUser(socket, ownUser)
    if (reason === undefined) return false
    socket.on('error', () => undefined)
    resetSocket(socket)
    connections += 1
    if (performance.now() - toldAt < TELL_REFUSED_EVERY_MS) return true
    toldAt = performance.now()
    report({
      event: 'user.refused',
      code: 'LOCAL_USER_REFUSED' satisfies ErrorCode,
      message: reason,
      connections,
    })
    connections = 0
    return true
  }
}

/** @returns undefined for a program of this user, and for whoever comes over a network */
function explainForeignUser(socket: Socket, ownUser: number): string | undefined {
  const [peer, here] = endpointsOf(socket)
  if (!isLoopback(here.address)) return undefined
  const user = findLocalUser(peer, here)
  if (user === ownUser) return undefined
  const who = user === undefined ? 'that was gone before its user could be found' : `of user ${user}`
  return `a program ${who} was refused`
}

function endpointsOf(socket: Socket): [peer: Endpoint, here: Endpoint] {
  const { remoteAddress = '', remotePort = 0, localAddress = '', localPort = 0 } = socket
  return [
    { address: remoteAddress, port: remotePort },
    { address: localAddress, port: localPort },
  ]
}

/** One local connection until it is over. Never rejects. */
async function serveConnection(socket: Socket, parts: ListenerParts): Promise<void> {
  const { place, report, certificate } = parts
  const [{ address, port }] = endpointsOf(socket)
  const from = `${address}:${port}`
  const startedAt = performance.now()
  const left = new AbortController()
  const program = new RawEnd(socket, socket, () => resetSocket(socket))
  const held = new HeldEnd(program, (error) => left.abort(error))
  program.resume()
  let flowId: string | undefined
  try {
    const signal = AbortSignal.any([left.signal, parts.signal])
    const edgeSocket = await dialService(place, await certificate.take(signal), signal)
    const traffic = await joinService(held, edgeSocket, {
      host: place.host,
      signal: parts.signal,
      onOk: (id) => {
        flowId = id
        report({ event: 'flow.opened', flowId: id, from })
      },
    })
    if (flowId === undefined && traffic.cut) throw traffic.cut.error
    if (spoilsCertificate(traffic.cut?.error)) certificate.forget()
    const durationMs = Math.round(performance.now() - startedAt)
    report({ event: 'flow.closed', flowId: flowId ?? '', from, durationMs, ...describeTraffic(traffic) })
  } catch (caught) {
    const error = toPosternError(withOrigin(caught, place.edge.origin), 'INTERNAL', String(caught))
    held.abort(error)
    if (spoilsCertificate(error)) certificate.forget()
    if (!left.signal.aborted && !parts.signal.aborted) report(describeRefusal(error, from))
  }
}

const CUT_BY = { left: 'program', right: 'service', signal: 'listener' } as const

function describeTraffic({ bytesUp, bytesDown, cut }: Traffic) {
  if (!cut) return { bytesUp, bytesDown }
  const { code: error, message, hint } = cut.error
  return { bytesUp, bytesDown, error, message, hint, cutBy: CUT_BY[cut.by] }
}

function describeRefusal({ code, message, hint, details }: PosternError, from: string) {
  const { flowId } = details ?? {}
  const known = typeof flowId === 'string' ? { flowId } : {}
  return { event: 'flow.refused', from, code, message, hint, ...known } as const
}

function explainListenError(cause: NodeJS.ErrnoException, { address, port }: Endpoint): PosternError {
  const reasons: Readonly<Record<string, string>> = {
    EADDRINUSE: 'another program listens there',
    EACCES: 'this user may not',
    EADDRNOTAVAIL: 'this machine has no such address',
  }
  const reason = reasons[cause.code ?? ''] ?? cause.message
  return new PosternError('LISTEN_FAILED', `cannot listen on ${address}, port ${port}: ${reason}`, { cause })
}
