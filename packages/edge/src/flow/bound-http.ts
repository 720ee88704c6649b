import type https from 'node:https'
import type { Socket } from 'node:net'
import { Guests } from '../limits/guests.ts'

/** An HTTP connection that was ended by the edge, not by an answer of the API. */
export interface RefusedHttp {
  room: string
  reason: 'too_many' | 'too_many_of_address' | 'headers_too_large' | 'late' | 'malformed' | 'stalled'
  clientHost: string | undefined
}

/** The open connections of a room. */
export interface HttpConnections {
  readonly size: number
  /** Somebody has shown on this one who they are: it no longer makes room for the strangers of its address. */
  settle(socket: Socket): void
  /** It has become a WebSocket. */
  delete(socket: Socket): void
}

/** Nothing read and nothing taken of an answer for so long: it will not be. */
const STALLED_MS = 60_000

/** Bounds what the strangers of an HTTP room can hold: the number of connections, and how long an answer waits for
 *  somebody who does not read it. Counts what Node refuses by itself: headers that are too large or too slow, bytes that
 *  are not HTTP. */
export function boundHttp(
  server: https.Server,
  options: {
    room: string
    maxConnections: number
    /** Of strangers. */
    maxPerAddress: number
    stalledMs?: number | undefined
    onRefused: (refused: RefusedHttp) => void
  },
): HttpConnections {
  const { room, maxConnections, maxPerAddress, onRefused } = options
  const refuse = (socket: Socket, reason: RefusedHttp['reason']) =>
    onRefused({ room, reason, clientHost: socket.remoteAddress })
  const guests = new Guests({
    max: maxConnections,
    maxPerAddress,
    settledMakeRoom: true,
    onCrowdedOut: refuse,
  })
  server.on('secureConnection', (socket) => {
    const { remoteAddress } = socket
    if (remoteAddress === undefined) return void socket.destroy()
    guests.enter(socket, remoteAddress)
    socket.once('close', () => guests.leave(socket))
  })
  server.setTimeout(options.stalledMs ?? STALLED_MS, (socket) => {
    if (socket.writableLength > 0) refuse(socket, 'stalled')
    socket.destroy()
  })
  server.on('clientError', (error: NodeJS.ErrnoException, socket) => {
    if (error.code === 'ECONNRESET' || !socket.writable) return void socket.destroy()
    const [reason, status] = REFUSALS[error.code ?? ''] ?? ['malformed', '400 Bad Request']
    refuse(socket as Socket, reason)
    socket.end(`HTTP/1.1 ${status}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n`)
    ;(socket as Socket).destroySoon()
  })
  return {
    get size() {
      return guests.size
    },
    settle(socket) {
      const { remoteAddress } = socket
      if (remoteAddress !== undefined) guests.settle(socket, remoteAddress)
    },
    delete: (socket) => guests.leave(socket),
  }
}

/** As Node answers when nobody listens. */
const REFUSALS: Readonly<Record<string, [RefusedHttp['reason'], string]>> = {
  HPE_HEADER_OVERFLOW: ['headers_too_large', '431 Request Header Fields Too Large'],
  HPE_CHUNK_EXTENSIONS_OVERFLOW: ['malformed', '413 Payload Too Large'],
  // more requests came while the answers to earlier ones were not read
  HPE_PAUSED: ['stalled', '400 Bad Request'],
  ERR_HTTP_REQUEST_TIMEOUT: ['late', '408 Request Timeout'],
}
