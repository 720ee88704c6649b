/** The rooms behind the one port. Each trusts the CAs of the kinds that have business there and no other: with a common
 *  root a leaf of another kind would be accepted as soon as it brought its own intermediate. Where there are two kinds,
 *  whoever identifies the peer asks which of the two it is. Rooms that need a client
 *  certificate speak TLS 1.3 only and never resume a session: a ticket would outlive the certificate, and carry
 *  a session into a room that does not trust its CA. */
import { constants } from 'node:crypto'
import type http from 'node:http'
import https from 'node:https'
import { isIPv6, type Socket } from 'node:net'
import tls, { type SecureContext, type TLSSocket } from 'node:tls'
import { ALPN_DATA, ALPN_FLOW } from '@postern/shared/protocol/frames'
import { labelOfHost } from '@postern/shared/service-label'
import type { AlpnAnswers } from '../acme/challenges.ts'
import { boundHttp, type RefusedHttp } from './bound-http.ts'
import type { ClientHello } from './client-hello.ts'
import type { Arrival, Room } from './ingress.ts'

/** A connection whose handshake is done, with what was peeked before it. */
export interface Entered extends Arrival {
  tls: TLSSocket
}

/** A handshake that did not succeed. `code` is OpenSSL's or Node's: the caller decides what to count or record. */
export interface RefusedHandshake {
  room: string
  code: string
  clientHost: string | undefined
}

export interface ServerIdentity {
  key: string
  cert: string
}

/** RFC 8737 §6.2. */
const ALPN_ACME = 'acme-tls/1'

/** SSL_OP_NO_TICKET and nothing to resume from: every connection says its name and shows its certificate. */
const NO_TICKETS = { secureOptions: constants.SSL_OP_NO_TICKET }
const NO_RESUMPTION = { ...NO_TICKETS, minVersion: 'TLSv1.3' as const }

export interface RoomsOptions {
  domain: string
  serverIdentity: ServerIdentity
  /** PEM, as it is now: read again with each new certificate of the server. */
  readonly clientCa: string
  readonly connectorCa: string
  readonly workloadCa: string
  /** CAs of others that this host trusts beside ours: PEM. They are known in its handshakes only. */
  findTrustedCas?: (host: string) => Promise<readonly string[]>
  /** What a CA's server is shown that looks whether this name is ours (RFC 8737). */
  alpnChallenge?: AlpnAnswers | undefined
  handshakeTimeoutMs: number
  /** In each of the two HTTP rooms. */
  maxHttpConnections: number
  /** Of strangers; in the other of the two everybody has shown a certificate. */
  maxHttpConnectionsPerAddress: number
  /** For tests: shorter times. */
  httpLimits?: https.ServerOptions | undefined
  onHttps: http.RequestListener
  onMtls: http.RequestListener
  /** An upgrade in the public room, and which requests are one. */
  onHttpsUpgrade: (request: http.IncomingMessage, socket: TLSSocket, head: Buffer) => void
  isHttpsUpgrade: (request: http.IncomingMessage) => boolean
  onMtlsUpgrade: (request: http.IncomingMessage, socket: TLSSocket, head: Buffer) => void
  onFlow: (entered: Entered) => void
  onData: (entered: Entered) => void
  /** Told of each handshake that succeeded: where, and how long it took. */
  onHandshake?: (room: string, ms: number) => void
  onRefused: (refused: RefusedHandshake) => void
  onHttpRefused: (refused: RefusedHttp) => void
}

export interface Rooms {
  /** The room of a ClientHello, by the table in docs/architecture.md; undefined closes the connection. */
  choose(hello: ClientHello, isInside?: boolean): Room | undefined
  /** Open connections of the HTTP rooms, by room. */
  httpConnections(): ReadonlyMap<string, number>
  /** Somebody has shown on this HTTP connection who they are. */
  settleHttp(socket: Socket): void
  /** Uses a renewed server certificate, and the CAs as they are now, for new connections. */
  replaceServerIdentity(identity: ServerIdentity): void
  /** Ends every HTTP connection. Flows and data connections belong to those who took them. */
  close(): void
}

export function openRooms(options: RoomsOptions): Rooms {
  const { domain, serverIdentity, handshakeTimeoutMs } = options
  const common = { ...serverIdentity, handshakeTimeout: handshakeTimeoutMs, allowHalfOpen: true }
  // a workload's certificate opens flows, and renews itself; a connector's attaches
  const flowCas = () => [options.clientCa, options.workloadCa]
  const mtlsCas = () => [options.connectorCa, options.workloadCa]
  const trusting = (ca: string | string[]) => ({
    ...common,
    ...NO_RESUMPTION,
    ca,
    requestCert: true,
    rejectUnauthorized: true,
  })
  const httpLimits = {
    headersTimeout: 10_000,
    requestTimeout: 30_000,
    maxHeaderSize: 16_384,
    keepAliveTimeout: 20_000,
    connectionsCheckingInterval: 5_000,
    ...options.httpLimits,
  }

  const httpsServer = https.createServer(
    {
      ...serverIdentity,
      handshakeTimeout: handshakeTimeoutMs,
      ...NO_TICKETS,
      minVersion: 'TLSv1.2',
      ALPNProtocols: ['http/1.1'],
      shouldUpgradeCallback: options.isHttpsUpgrade,
      ...httpLimits,
    },
    options.onHttps,
  )
  const inside = new WeakSet<Socket>()
  const { allowHalfOpen: _, ...trustingHttp } = trusting(mtlsCas())
  const mtlsServer = https.createServer(
    { ...trustingHttp, ALPNProtocols: ['http/1.1'], ...httpLimits },
    (request, response) => {
      // a connector attaches from inside, and that is all
      if (inside.has(request.socket)) response.writeHead(404, { connection: 'close' }).end()
      else options.onMtls(request, response)
    },
  )
  const bound = (room: string, server: https.Server, maxPerAddress: number) =>
    boundHttp(server, {
      room,
      maxConnections: options.maxHttpConnections,
      maxPerAddress,
      onRefused: options.onHttpRefused,
    })
  const httpsOpen = bound('https', httpsServer, options.maxHttpConnectionsPerAddress)
  const mtlsOpen = bound('mtls', mtlsServer, options.maxHttpConnections)
  httpsServer.on('upgrade', (request, socket, head) => {
    httpsOpen.delete(socket as TLSSocket)
    options.onHttpsUpgrade(request, socket as TLSSocket, head)
  })
  mtlsServer.on('upgrade', (request, socket, head) => {
    mtlsOpen.delete(socket as TLSSocket)
    options.onMtlsUpgrade(request, socket as TLSSocket, head)
  })
  const contexts = new FlowContexts(flowCas, serverIdentity)
  const flowServer = tls.createServer({
    ...trusting(flowCas()),
    ALPNProtocols: [ALPN_FLOW],
    SNICallback: (name, done) => {
      const found = options.findTrustedCas?.(name) ?? Promise.resolve([])
      // what cannot be found is not trusted; ours are
      found.then(
        (cas) => done(null, contexts.with(cas)),
        () => done(null, undefined),
      )
    },
  })
  const dataServer = tls.createServer({ ...trusting(options.connectorCa), ALPNProtocols: [ALPN_DATA] })

  const acmeServer = tls.createServer({
    handshakeTimeout: handshakeTimeoutMs,
    minVersion: 'TLSv1.2',
    ALPNProtocols: [ALPN_ACME],
    SNICallback: (name, done) => {
      const found = options.alpnChallenge?.contextFor(name) ?? Promise.resolve(undefined)
      found.then((context) => done(null, context), done)
    },
  })

  // Node begins to watch its HTTP timeouts, and to know its connections, when the server listens: these never do
  for (const server of [httpsServer, mtlsServer]) server.emit('listening')

  const arrivals = new Arrivals()
  const room = (name: string, server: tls.Server, enter: (entered: Entered) => void): Room => {
    enterAsPeeked(server, arrivals, (entered) => {
      options.onHandshake?.(name, performance.now() - entered.arrivedAt)
      enter(entered)
    })
    server.on('tlsClientError', (error: NodeJS.ErrnoException, socket) => {
      const refusal = socket.authorizationError as unknown
      const code =
        typeof refusal === 'string'
          ? refusal
          : ((refusal as Error | null)?.message ?? error.code ?? 'UNKNOWN')
      const clientHost = arrivals.of(socket)?.clientHost ?? socket.remoteAddress
      options.onRefused({ room: name, code, clientHost })
      socket.destroy()
    })
    return {
      name,
      enter(arrival) {
        arrivals.add(arrival)
        server.emit('connection', arrival.socket)
      },
    }
  }
  const rooms = {
    https: room('https', httpsServer, () => {}), // the HTTP server has it already
    mtls: room('mtls', mtlsServer, (entered) => {
      if (entered.isInside) inside.add(entered.tls)
    }),
    flow: room('flow', flowServer, options.onFlow),
    data: room('data', dataServer, options.onData),
    acme: room('acme', acmeServer, (entered) => entered.tls.destroySoon()), // it has seen what it came for
  }

  const choose = ({ serverName, alpn }: ClientHello): Room | undefined => {
    if (serverName === undefined) return undefined
    if (alpn.includes(ALPN_ACME))
      return options.alpnChallenge?.isExpected(serverName) ? rooms.acme : undefined
    const wantsHttp = alpn.includes('http/1.1')
    if (serverName === domain) {
      if (alpn.includes(ALPN_DATA)) return rooms.data
      return wantsHttp || alpn.length === 0 ? rooms.https : undefined
    }
    if (serverName === `mtls.${domain}`) return wantsHttp || alpn.length === 0 ? rooms.mtls : undefined
    if (labelOfHost(serverName, domain) === undefined) return undefined
    return alpn.length === 0 || alpn.includes(ALPN_FLOW) ? rooms.flow : undefined
  }
  const withinReach: readonly (Room | undefined)[] = [rooms.flow, rooms.data, rooms.mtls]

  return {
    choose(hello, isInside = false) {
      const found = choose(hello)
      return isInside && !withinReach.includes(found) ? undefined : found
    },
    httpConnections: () =>
      new Map([
        ['https', httpsOpen.size],
        ['mtls', mtlsOpen.size],
      ]),
    settleHttp: httpsOpen.settle,
    replaceServerIdentity(identity) {
      httpsServer.setSecureContext({ ...identity, ...NO_TICKETS, minVersion: 'TLSv1.2' })
      mtlsServer.setSecureContext({ ...identity, ...NO_RESUMPTION, ca: mtlsCas() })
      flowServer.setSecureContext({ ...identity, ...NO_RESUMPTION, ca: flowCas() })
      contexts.replaceServerIdentity(identity)
      dataServer.setSecureContext({ ...identity, ...NO_RESUMPTION, ca: options.connectorCa })
    },
    close() {
      for (const server of [httpsServer, mtlsServer]) {
        server.close()
        server.closeAllConnections()
      }
    },
  }
}

/** What handshakes trust where a service trusts CAs of others beside ours. The same CAs have the same context. */
class FlowContexts {
  readonly #own: () => readonly string[]
  #identity: ServerIdentity
  readonly #known = new Map<string, SecureContext>()

  constructor(own: () => readonly string[], identity: ServerIdentity) {
    this.#own = own
    this.#identity = identity
  }

  replaceServerIdentity(identity: ServerIdentity): void {
    this.#identity = identity
    this.#known.clear()
  }

  /** @returns undefined for none beside ours: that is what the server has already */
  with(cas: readonly string[]): SecureContext | undefined {
    if (cas.length === 0) return undefined
    const key = cas.join()
    const known = this.#known.get(key)
    if (known) return known
    if (this.#known.size >= MAX_CONTEXTS) this.#known.clear()
    const context = tls.createSecureContext({
      ...this.#identity,
      ...NO_RESUMPTION,
      ca: [...this.#own(), ...cas],
      allowPartialTrustChain: true, // the CA that was named, also where another one has signed it
    })
    this.#known.set(key, context)
    return context
  }
}

const MAX_CONTEXTS = 100

/** Finds a TLS socket's arrival again: `secureConnection` does not say which socket it was built on, but no two
 *  living connections of one port share both addresses. */
class Arrivals {
  readonly #byAddresses = new Map<string, Arrival>()
  readonly #ofSocket = new WeakMap<Socket, Arrival>()

  add(arrival: Arrival): void {
    const key = addressesOf(arrival.socket)
    this.#byAddresses.set(key, arrival)
    arrival.socket.once('close', () => {
      if (this.#byAddresses.get(key) === arrival) this.#byAddresses.delete(key)
    })
  }

  of(socket: Socket): Arrival | undefined {
    const known = this.#ofSocket.get(socket)
    if (known) return known
    const key = addressesOf(socket)
    const arrival = this.#byAddresses.get(key)
    if (!arrival) return undefined
    this.#byAddresses.delete(key)
    this.#ofSocket.set(socket, arrival)
    return arrival
  }
}

/** Whoever asks a connection where it comes from is told the client, not the balancer in front: everything that reads
 *  it, HTTP too, gets it from here. */
function showClient(socket: Socket, { clientHost, clientPort }: Arrival): void {
  if (socket.remoteAddress === clientHost && socket.remotePort === clientPort) return
  Object.defineProperties(socket, {
    remoteAddress: { value: clientHost },
    remotePort: { value: clientPort },
    remoteFamily: { value: isIPv6(clientHost) ? 'IPv6' : 'IPv4' },
  })
}

function addressesOf(socket: Socket): string {
  return `${socket.remoteAddress} ${socket.remotePort} ${socket.localAddress} ${socket.localPort}`
}

/** Passes on connections whose handshake led where the ClientHello pointed. */
function enterAsPeeked(server: tls.Server, arrivals: Arrivals, enter: (entered: Entered) => void): void {
  // before anybody else hears of it
  server.prependListener('secureConnection', (socket: TLSSocket) => {
    const arrival = arrivals.of(socket)
    if (arrival) showClient(socket, arrival)
  })
  server.on('secureConnection', (socket) => {
    socket.on('error', () => {}) // the holder hears 'close'
    const arrival = arrivals.of(socket)
    arrival?.handshakeDone()
    const peeked = arrival?.hello
    const spoken = socket.alpnProtocol || undefined
    const asPeeked =
      peeked?.serverName === socketServerName(socket) &&
      (spoken ? peeked?.alpn.includes(spoken) : peeked?.alpn.length === 0)
    if (!arrival || !asPeeked) return void socket.destroy()
    enter({ ...arrival, tls: socket })
  })
}

/** @types/node lacks `servername` of a server-side socket: the SNI name, or false. */
function socketServerName(socket: TLSSocket): string | undefined {
  const name = (socket as TLSSocket & { servername?: string | false }).servername
  return name ? name.toLowerCase() : undefined
}
