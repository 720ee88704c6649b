/** The one TLS port. Reads each connection's ClientHello, leaves the bytes where they were, and hands the
 *  connection to one room by SNI and ALPN. It decides nothing else: who may enter is the room's question. From a
 *  balancer it takes the PROXY header first, and the addresses in it for those of the connection: one that is named in
 *  the configuration has to begin with it, and nobody else may. */
import net, { type Server, type Socket } from 'node:net'
import { formatAddress, type IpEndpoint } from '@postern/shared/ip-address'
import type { Logger } from '@postern/shared/logger'
import {
  MAX_PROXY_HEADER_BYTES,
  type ProxyHeader,
  readProxyHeader,
} from '@postern/shared/proxy-protocol/header'
import type { EdgeLimits } from '../config/config.ts'
import { Crowd } from '../limits/crowd.ts'
import { openNetworks } from '../limits/network.ts'
import type { OnLimited, Strangers } from '../limits/strangers.ts'
import { type ClientHello, peekClientHello } from './client-hello.ts'
import { Turnstile } from './turnstile.ts'

/** A place behind the port, with its own trust: a TLS server that does not listen. */
export interface Room {
  readonly name: string
  /** Takes over a connection whose bytes are still unread. */
  enter(arrival: Arrival): void
}

/** A connection whose ClientHello was read and put back. */
interface Peeked {
  socket: Socket
  hello: ClientHello
  /** When its ClientHello was whole, by `performance.now()`. */
  arrivedAt: number
}

/** A connection that has said where it wants to go. */
export interface Arrival extends Peeked {
  /** `203.0.113.7:50514` or `[2001:db8::7]:50514`. */
  clientAddress: string
  /** The address alone, and its port. */
  clientHost: string
  clientPort: number
  /** Where it has reached the edge, with the port. */
  edgeAddress: string
  /** It came inside a WebSocket. */
  isInside: boolean
  /** For the room to call when the handshake is done: until then the connection is a pending one. */
  handshakeDone(): void
}

export interface Ingress {
  server: Server
  /** Takes what came inside a WebSocket, from whom the WebSocket is. Not every room can be entered from there.
   *  @param onHandshake somebody has shown inside who they are */
  enterInside(socket: Socket, ends: { client: IpEndpoint; edge: IpEndpoint }, onHandshake: () => void): void
  /** Connections turned away before a room, by reason. */
  readonly turnedAway: ReadonlyMap<TurnedAway, number>
  /** Connections on the port, and those of them whose handshake is not done. */
  readonly size: { open: number; pending: number }
  /** Stops listening and ends the connections whose handshake is not done. Resolves once all others have ended. */
  close(): Promise<void>
  /** Ends every connection. */
  destroyAll(): void
}

export type TurnedAway =
  | 'late'
  | 'too_large'
  | 'malformed'
  | 'proxy_header'
  | 'no_room'
  | 'left'
  | 'too_many'
  | 'too_many_of_address'
  | 'failed_too_often'

/** Bytes a socket reads ahead and queues before it asks the writer to wait. */
export const HIGH_WATER_MARK = 256 * 1024
/** Handshakes begun in one turn of the event loop: about ten milliseconds of work. */
const ENTER_PER_TURN = 8
/** A handshake takes two round trips: whoever answers that late does not want to. */
const STALLED_MS = 2_000

/** How far a pending connection is. `waiting`: it has said where it wants to go, and the edge has not begun. */
interface Step {
  stage: 'silent' | 'waiting' | 'begun'
  /** Since when, by `performance.now()`. */
  at: number
}

/** Who has to go first when there are too many: the least. */
const WORTH = { waiting: 1, silent: 2, begun: 3 } as const
const STALLED = 0

export function openIngress(parts: {
  chooseRoom: (hello: ClientHello, isInside: boolean) => Room | undefined
  /** Addresses and networks of balancers. */
  acceptProxyProtocol: readonly string[]
  limits: EdgeLimits
  strangers: Pick<Strangers, 'admitHandshake' | 'countHandshake'>
  onLimited: OnLimited
  log: Logger
}): Ingress {
  const { chooseRoom, acceptProxyProtocol, limits, strangers, onLimited, log } = parts
  const turnedAway = new Map<TurnedAway, number>()
  const open = new Set<Socket>()
  const pending = new Crowd()
  const turnstile = new Turnstile<Socket>(ENTER_PER_TURN)
  const steps = new Map<Socket, Step>()

  const leave = (socket: Socket) => {
    turnstile.leave(socket)
    steps.delete(socket)
    return pending.delete(socket)
  }
  const enter = (socket: Socket, address: string) => {
    pending.add(socket, address)
    steps.set(socket, { at: performance.now(), stage: 'silent' })
  }
  const turnAway = (socket: Socket, reason: TurnedAway) => {
    leave(socket)
    turnedAway.set(reason, (turnedAway.get(reason) ?? 0) + 1)
    log.debug('ingress.turned_away', { reason })
    socket.destroy()
  }
  const enterRoom = (room: Room, { socket, hello, arrivedAt }: Peeked, ends: Ends) => {
    const { client, edge, isInside, onHandshake } = ends
    steps.set(socket, { at: performance.now(), stage: 'begun' })
    room.enter({
      socket,
      hello,
      clientHost: client.host,
      clientPort: client.port,
      clientAddress: formatAddress(client.host, client.port),
      edgeAddress: formatAddress(edge.host, edge.port),
      arrivedAt,
      isInside,
      handshakeDone() {
        leave(socket)
        onHandshake?.()
      },
    })
  }

  const fail = (socket: Socket, clientHost: string, reason: TurnedAway) => {
    strangers.countHandshake(clientHost)
    turnAway(socket, reason)
  }
  /** Who stands still, else who waits, else who has said nothing yet, and only then who is at it: of thousands that come
   *  back after a restart none is turned away that has been worked for. Of equals the oldest; of all who wait the last of those who
   *  want to where most want to. */
  const leastWorth = (sockets: Iterable<Socket>): Socket | undefined => {
    const stalledBefore = performance.now() - STALLED_MS
    const worth = (socket: Socket) => {
      const { at, stage } = steps.get(socket)!
      return stage !== 'waiting' && at < stalledBefore ? STALLED : WORTH[stage]
    }
    let least: { socket: Socket; worth: number } | undefined
    for (const socket of sockets) {
      const found = { socket, worth: worth(socket) }
      if (!least || found.worth < least.worth) least = found
    }
    return least?.worth === WORTH.waiting && sockets === pending ? turnstile.lastOfMost : least?.socket
  }
  const makeRoom = () => {
    if (pending.size < limits.maxPendingHandshakes) return
    const stranger = leastWorth(pending)
    if (stranger) turnAway(stranger, 'too_many')
  }
  /** One's own crowd first: it must not push out anybody else. */
  const makeRoomFor = (clientHost: string) => {
    const neighbour = leastWorth(pending.full(clientHost, limits.maxPendingHandshakesPerAddress))
    if (!neighbour) return makeRoom()
    onLimited('pending_handshakes', clientHost)
    fail(neighbour, clientHost, 'too_many_of_address')
  }
  const admit = (socket: Socket, ends: Ends) => {
    const { host } = ends.client
    if (!strangers.admitHandshake(host)) return turnAway(socket, 'failed_too_often')
    makeRoomFor(host)
    enter(socket, host)
    peekSocket(socket, limits, (result) => {
      if (!pending.has(socket)) return // turned away meanwhile
      if (typeof result === 'string') return fail(socket, host, result)
      socket.once('close', () => {
        if (leave(socket)) strangers.countHandshake(host)
      })
      const room = chooseRoom(result, ends.isInside)
      if (!room) return fail(socket, host, 'no_room')
      const peeked = { socket, hello: result, arrivedAt: performance.now() }
      steps.set(socket, { at: peeked.arrivedAt, stage: 'waiting' })
      turnstile.pass(room.name, socket, () => enterRoom(room, peeked, ends))
    })
  }
  /** The balancer itself is no stranger: whoever is behind it is counted, once it has said who. */
  const admitBehind = (socket: Socket, balancer: Ends) => {
    makeRoom()
    enter(socket, balancer.client.host)
    takeProxyHeader(socket, limits, (result) => {
      if (!leave(socket)) return // turned away meanwhile
      if (typeof result !== 'string')
        return admit(socket, result.command === 'proxy' ? endsOf(result) : balancer)
      if (result !== 'left')
        log.warn('ingress.proxy_header', { reason: result, balancer: balancer.client.host })
      turnAway(socket, result === 'malformed' ? 'proxy_header' : result)
    })
  }
  const take = (socket: Socket) => {
    socket.on('error', () => {}) // whoever holds the connection then hears 'close'; resets are not news
    open.add(socket)
    socket.once('close', () => open.delete(socket))
  }
  const enterInside: Ingress['enterInside'] = (socket, ends, onHandshake) => {
    take(socket)
    if (socket.destroyed) turnAway(socket, 'left')
    else admit(socket, { ...ends, isInside: true, onHandshake })
  }
  const isBalancer = openNetworks(acceptProxyProtocol)

  const server = net.createServer(
    {
      allowHalfOpen: true,
      noDelay: true,
      keepAlive: true,
      keepAliveInitialDelay: 30_000,
      highWaterMark: HIGH_WATER_MARK,
    },
    (socket) => {
      take(socket)
      const ends = ownEnds(socket)
      if (!ends) return turnAway(socket, 'left')
      if (isBalancer(ends.client.host)) admitBehind(socket, ends)
      else admit(socket, ends)
    },
  )
  // from then on: a connection that could not be accepted, for want of descriptors; the next one may
  server.once('listening', () => server.on('error', (error) => log.warn('ingress.accept_failed', { error })))
  const close = () => {
    const closed = new Promise<void>((resolve) => server.close(() => resolve()))
    for (const socket of pending) socket.destroy()
    return closed
  }
  const destroyAll = () => {
    for (const socket of open) socket.destroy()
  }
  return {
    server,
    enterInside,
    turnedAway,
    get size() {
      return { open: open.size, pending: pending.size }
    },
    close,
    destroyAll,
  }
}

/** Both ends of a client's connection. */
interface Ends {
  client: IpEndpoint
  edge: IpEndpoint
  isInside: boolean
  onHandshake?: () => void
}

function ownEnds({ remoteAddress, remotePort, localAddress, localPort }: Socket): Ends | undefined {
  if (remoteAddress === undefined || localAddress === undefined) return undefined
  return {
    client: { host: remoteAddress, port: remotePort! },
    edge: { host: localAddress, port: localPort! },
    isInside: false,
  }
}

function endsOf({ source, destination }: ProxyHeader & { command: 'proxy' }): Ends {
  return { client: source, edge: destination, isInside: false }
}

type ReadLimits = Pick<EdgeLimits, 'handshakeTimeoutMs' | 'maxClientHelloBytes'>

/** Reads until the ClientHello is whole, puts everything back, and tells. */
function peekSocket(
  socket: Socket,
  limits: ReadLimits,
  done: (result: ClientHello | TurnedAway) => void,
): void {
  readAhead(
    socket,
    peekClientHello,
    { ...limits, maxBytes: limits.maxClientHelloBytes, takes: () => 0 },
    done,
  )
}

/** Reads until the header is whole, puts back what follows it, and tells. */
function takeProxyHeader(
  socket: Socket,
  limits: ReadLimits,
  done: (result: ProxyHeader | TurnedAway) => void,
): void {
  const takes = ({ length }: ProxyHeader) => length
  readAhead(socket, readProxyHeader, { ...limits, maxBytes: MAX_PROXY_HEADER_BYTES, takes }, done)
}

/** Reads until there is an answer, and puts back what it does not take. Exactly one answer per socket. */
function readAhead<Result extends object>(
  socket: Socket,
  read: (bytes: Buffer) => Result | 'incomplete' | 'malformed',
  options: { handshakeTimeoutMs: number; maxBytes: number; takes: (result: Result) => number },
  done: (result: Result | TurnedAway) => void,
): void {
  let bytes: Buffer = Buffer.alloc(0)
  const finish = (result: Result | TurnedAway) => {
    clearTimeout(timer)
    socket.off('readable', onReadable)
    socket.off('end', onLeft)
    socket.off('close', onLeft)
    if (typeof result !== 'string') {
      const rest = bytes.subarray(options.takes(result))
      if (rest.length > 0) socket.unshift(rest)
    }
    done(result)
  }
  const onLeft = () => finish('left')
  const onReadable = () => {
    for (let chunk: Buffer | null = socket.read(); chunk !== null; chunk = socket.read()) {
      bytes = bytes.length === 0 ? chunk : Buffer.concat([bytes, chunk])
      const result = read(bytes)
      if (result === 'malformed') return finish('malformed')
      if (result !== 'incomplete') return finish(result)
      if (bytes.length > options.maxBytes) return finish('too_large')
    }
  }
  const timer = setTimeout(() => finish('late'), options.handshakeTimeoutMs)
  socket.on('readable', onReadable)
  socket.on('end', onLeft)
  socket.on('close', onLeft)
  if (socket.readableLength > 0) onReadable() // put back a moment ago: of that there is no event
}
