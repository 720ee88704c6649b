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

export async function openTransport(parts: {
  /** At once, of all addresses. */
  maxConnections: number
  isStopping: () => boolean
  enterInside: Ingress['enterInside']
  log: Logger
}): Promise<Transport> {
  const { maxConnections, isStopping, enterInside, log } = parts
  const server = new WebSocketServer({
    noServer: true,
    perMessageDeflate: false,
    maxPayload: MAX_TRANSPORT_MESSAGE_BYTES,
    handleProtocols: () => TRANSPORT_SUBPROTOCOL,
  })
  const pairs = await openSocketPairs(HIGH_WATER_MARK)
  const carry = async (ws: WebSocket, ends: Parameters<Ingress['enterInside']>[1]) => {
    const stream = new MessageStream(ws)
    const { near, far } = await pairs.open()
    enterInside(far, ends)
    await splice(
      new RawEnd(stream, stream, () => stream.destroy()),
      new RawEnd(near, near, () => resetSocket(near)),
    )
  }
  return {
    upgrade(request, socket, head) {
      const { remoteAddress, remotePort, localAddress, localPort } = socket
      if (remoteAddress === undefined || localAddress === undefined) return void socket.destroy()
      const ends = {
        client: { host: remoteAddress, port: remotePort! },
        edge: { host: localAddress, port: localPort! },
      }
      if (server.clients.size >= maxConnections || isStopping()) {
        socket.end('HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 0\r\n\r\n')
        return void socket.destroySoon()
      }
      server.handleUpgrade(request, socket, head, (ws) => {
        carry(ws, ends).catch((error: unknown) => {
          log.warn('transport.failed', { error })
          ws.terminate()
        })
      })
    },
    get size() {
      return server.clients.size
    },
    close() {
      for (const ws of server.clients) ws.terminate()
      pairs.close()
    },
  }
}
