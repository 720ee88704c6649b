import { once } from 'node:events'
import type { Server, Socket } from 'node:net'
import { type PosternError, toPosternError } from '@postern/shared/errors'
import { RawEnd } from '@postern/shared/stream/raw-end'
import { resetSocket } from '@postern/shared/stream/reset-socket'
import type { Traffic } from '@postern/shared/stream/splice'
import { reloadCas, withOrigin } from '../credentials/known-edge.ts'
import type { LiveCertificate } from '../credentials/live-certificate.ts'
import { reasonOf } from '../events.ts'
import type { Trust } from './dial-edge.ts'
import { HeldEnd } from './held-end.ts'
import type { Report } from './listener-events.ts'
import { formatLocal, placeOf } from './local-place.ts'
import { endpointsOf } from './local-user.ts'
import { dialService, joinService, type ServicePlace, spoilsCertificate } from './service-flow.ts'
import { createUserGuard } from './user-guard.ts'

/** A local port that is a service: each connection of a program of this machine becomes a flow of its own. What
 *  goes wrong reaches that program as a reset, never as an end of file. */

export interface ListenerParts {
  place: ServicePlace
  certificate: LiveCertificate<Trust>
  /** Serves programs of every user. Without it those of this process's own, where the system can tell. */
  unsafeAnyLocalUser: boolean
  /** Goes on when there is no certificate to begin with: each connection asks again. Left out: that ends it. */
  staysWhenRefused?: boolean
  report: Report
  /** Aborts when it is to end: connections that run are reset. */
  signal: AbortSignal
  /** Aborts when the server is somebody else's from now on: new connections are theirs, those that run end by themselves. */
  handedOver?: AbortSignal
}

/** How long a local program may take to see its reset before the process ends. */
const LEAVE_MS = 2_000

/** Serves until its signal aborts, or its server was closed or handed over and the last connection is over. Connections
 *  that come before there is a certificate wait for it.
 *  @throws why there is none to begin with */
export async function serveListener(server: Server, parts: ListenerParts): Promise<void> {
  const { signal, handedOver } = parts
  const over = Promise.withResolvers<void>()
  server.once('close', over.resolve)
  signal.addEventListener('abort', () => over.resolve())
  const { sockets, stop } = acceptConnections(server, parts)
  handedOver?.addEventListener('abort', () => {
    stop()
    void allClosed(sockets).then(over.resolve)
  })
  try {
    await announce(server, parts)
    if (!signal.aborted) await over.promise
  } catch (error) {
    if (!signal.aborted) throw error
  } finally {
    server.off('close', over.resolve)
    if (signal.aborted || !handedOver?.aborted) await closeListener(server, sockets)
  }
}

async function announce(server: Server, parts: ListenerParts): Promise<void> {
  const { place, certificate, report, signal, staysWhenRefused, handedOver } = parts
  const where = { host: place.host, ...placeOf(server), edge: place.edge.origin }
  const isOurs = () => server.listening && !handedOver?.aborted
  try {
    await certificate.takeFirst(signal)
    if (isOurs()) report({ event: 'ready', ...where })
  } catch (caught) {
    if (!staysWhenRefused || signal.aborted) throw caught
    const error = toPosternError(withOrigin(caught, place.edge.origin), 'INTERNAL', String(caught))
    if (isOurs()) report({ event: 'listener.waiting', ...where, ...reasonOf(error) })
  }
}

/** @returns those that are open, and what ends the taking of new ones */
function acceptConnections(
  server: Server,
  parts: ListenerParts,
): { sockets: ReadonlySet<Socket>; stop: () => void } {
  const here = placeOf(server)
  const isFile = 'path' in here // its mode says who may come
  const refuseUser = isFile || parts.unsafeAnyLocalUser ? () => false : createUserGuard(parts.report)
  const sockets = new Set<Socket>()
  const accept = (socket: Socket) => {
    if (refuseUser(socket)) return
    sockets.add(socket)
    socket.once('close', () => sockets.delete(socket))
    void serveConnection(isFile ? formatLocal(here) : describePeer(socket), socket, parts)
  }
  server.on('connection', accept)
  return { sockets, stop: () => void server.off('connection', accept) }
}

function describePeer(socket: Socket): string {
  const [{ address, port }] = endpointsOf(socket)
  return `${address}:${port}`
}

/** A process that ends before its resets are sent leaves ends of file behind. */
async function closeListener(server: Server, sockets: ReadonlySet<Socket>): Promise<void> {
  server.close()
  await Promise.race([allClosed(sockets), new Promise((resolve) => setTimeout(resolve, LEAVE_MS).unref())])
}

async function allClosed(sockets: ReadonlySet<Socket>): Promise<void> {
  await Promise.all([...sockets].map((socket) => once(socket, 'close')))
}

/** One local connection until it is over. Never rejects. */
async function serveConnection(from: string, socket: Socket, parts: ListenerParts): Promise<void> {
  const { place, report, certificate } = parts
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
        report({ event: 'flow.opened', flowId: id, host: place.host, from })
      },
    })
    if (flowId === undefined && traffic.cut) throw traffic.cut.error
    if (spoilsCertificate(traffic.cut?.error)) certificate.forget()
    const durationMs = Math.round(performance.now() - startedAt)
    const known = { flowId: flowId ?? '', host: place.host, from, durationMs }
    report({ event: 'flow.closed', ...known, ...describeTraffic(traffic) })
  } catch (caught) {
    const error = toPosternError(withOrigin(caught, place.edge.origin), 'INTERNAL', String(caught))
    held.abort(error)
    if (spoilsCertificate(error)) certificate.forget()
    if (error.code === 'EDGE_UNTRUSTED') reloadCas(place.edge)
    if (!left.signal.aborted && !parts.signal.aborted)
      report({ host: place.host, from, ...describeRefusal(error) })
  }
}

const CUT_BY = { left: 'program', right: 'service', signal: 'listener' } as const

function describeTraffic({ bytesUp, bytesDown, cut }: Traffic) {
  if (!cut) return { bytesUp, bytesDown }
  const { code: error, message, hint } = cut.error
  return { bytesUp, bytesDown, error, message, hint, cutBy: CUT_BY[cut.by] }
}

function describeRefusal(error: PosternError) {
  const { flowId } = error.details ?? {}
  return {
    event: 'flow.refused',
    ...reasonOf(error),
    ...(typeof flowId === 'string' ? { flowId } : {}),
  } as const
}
