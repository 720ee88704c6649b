import type { IncomingMessage } from 'node:http'
import type { TLSSocket } from 'node:tls'
import type { Logger } from '@postern/shared/logger'
import {
  MAX_TRANSPORT_MESSAGE_BYTES,
  TRANSPORT_PATH,
  TRANSPORT_SUBPROTOCOL,
} from '@postern/shared/protocol/transport'
import { MessageStream } from '@postern/shared/stream/message-stream'
import { RawEnd } from '@postern/shared/stream/raw-end'
import { resetSocket } from '@postern/shared/stream/reset-socket'
import { splice } from '@postern/shared/stream/splice'
import { type WebSocket, WebSocketServer } from 'ws'
import { HIGH_WATER_MARK, type Ingress } from '../flow/ingress.ts'
import { Guests } from '../limits/guests.ts'
import { openSocketPairs } from './socket-pairs.ts'

/** Connections inside WebSockets, for networks that let nothing else pass. A WebSocket is worth no more than a new
 *  connection at the port: it brings its bytes to the ingress, which bounds who has not shown a certificate yet, by time and
 *  by address, and lets nobody into the public room again. */
export interface Transport {
  /** For the `upgrade` event of the public room. */
  upgrade(request: IncomingMessage, socket: TLSSocket, head: Buffer): void
  readonly size: number
  close(): void
}

export function isTransport(request: IncomingMessage): boolean {
  return request.url === TRANSPORT_PATH && request.headers['sec-websocket-protocol'] === TRANSPORT_SUBPROTOCOL
}

type Ends = Parameters<Ingress['enterInside']>[1]

/** A WebSocket that was not taken, or that the edge has ended. */
export interface RefusedTransport {
  reason: 'too_many' | 'too_many_of_address' | 'stopping' | 'malformed' | 'stalled'
  clientHost: string
}

/** How long who is at the other end may take for the last bytes, once the connection inside is closed. */
const LINGER_MS = 10_000
/** Parts of one message, and pieces in which it comes: a front end may cut it, but what each of them costs is much more
 *  than its bytes. */
const MAX_PARTS = 256
const MAX_PIECES = 1_024

export interface TransportParts {
  /** At once, of all addresses. */
  maxConnections: number
  /** Of those, the ones of one address on which nobody has shown a certificate yet. */
  maxPerAddress: number
  isStopping: () => boolean
  enterInside: Ingress['enterInside']
  onRefused: (refused: RefusedTransport) => void
  log: Logger
  /** For tests: a shorter time. */
  lingerMs?: number
}

export async function openTransport(parts: TransportParts): Promise<Transport> {
  const { maxConnections, maxPerAddress, isStopping, enterInside, onRefused, log } = parts
  const server = new WebSocketServer({
    noServer: true,
    perMessageDeflate: false,
    maxPayload: MAX_TRANSPORT_MESSAGE_BYTES,
    maxFragments: MAX_PARTS,
    maxBufferedChunks: MAX_PIECES,
    handleProtocols: () => TRANSPORT_SUBPROTOCOL,
  })
  const guests = new Guests({
    max: maxConnections,
    maxPerAddress,
    settledMakeRoom: false,
    onCrowdedOut: (socket, reason) => onRefused({ reason, clientHost: socket.remoteAddress ?? 'unknown' }),
  })
  const pairs = await openSocketPairs(HIGH_WATER_MARK)
  const carry = async (ws: WebSocket, ends: Ends, onHandshake: () => void) => {
    const refused = (reason: RefusedTransport['reason']) =>
      onRefused({ reason, clientHost: ends.client.host })
    const stream = new MessageStream(ws)
    ws.on('error', () => refused('malformed'))
    const { near, far } = await pairs.open()
    if (stream.destroyed) {
      for (const socket of [near, far]) socket.destroy()
      return
    }
    let lingering: NodeJS.Timeout | undefined
    // its FIN ends one direction; the other one is whoever opened the WebSocket free to keep open for ever
    const linger = () => {
      lingering = setTimeout(() => {
        refused('stalled')
        ws.terminate()
      }, parts.lingerMs ?? LINGER_MS)
    }
    far.once('close', linger)
    enterInside(far, ends, onHandshake)
    await splice(
      new RawEnd(stream, stream, () => stream.destroy()),
      new RawEnd(near, near, () => resetSocket(near)),
    )
    far.off('close', linger)
    clearTimeout(lingering)
  }
  return {
    upgrade(request, socket, head) {
      const { remoteAddress, remotePort, localAddress, localPort } = socket
      if (remoteAddress === undefined || localAddress === undefined) return void socket.destroy()
      const ends = {
        client: { host: remoteAddress, port: remotePort! },
        edge: { host: localAddress, port: localPort! },
      }
      const hasRoom = !isStopping() && guests.enter(socket, remoteAddress)
      if (!hasRoom) {
        onRefused({ reason: isStopping() ? 'stopping' : 'too_many', clientHost: remoteAddress })
        socket.end('HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 0\r\n\r\n')
        return void socket.destroySoon()
      }
      socket.once('close', () => guests.leave(socket))
      server.handleUpgrade(request, socket, head, (ws) => {
        carry(ws, ends, () => guests.settle(socket, remoteAddress)).catch((error: unknown) => {
          log.warn('transport.failed', { error })
          ws.terminate()
        })
      })
    },
    get size() {
      return guests.size
    },
    close() {
      for (const ws of server.clients) ws.terminate()
      pairs.close()
    },
  }
}
