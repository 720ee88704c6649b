import type https from 'node:https'
import type { Socket } from 'node:net'

/** An HTTP connection that was ended by the edge, not by an answer of the API. */
export interface RefusedHttp {
  room: string
  reason: 'too_many' | 'headers_too_large' | 'late' | 'malformed' | 'stalled'
}

/** Nothing read and nothing taken of an answer for so long: it will not be. */
const STALLED_MS = 60_000

/** Bounds what the strangers of an HTTP room can hold: the number of connections (the oldest goes: whoever is
 *  honest is done in a moment) and how long an answer waits for somebody who does not read it. Counts what Node
 *  refuses by itself: headers that are too large or too slow, bytes that are not HTTP.
 *  @returns the open connections, for the caller to take out what becomes a WebSocket */
export function boundHttp(
  server: https.Server,
  options: {
    room: string
    maxConnections: number
    stalledMs?: number | undefined
    onRefused: (refused: RefusedHttp) => void
  },
): Set<Socket> {
  const { room, maxConnections, onRefused } = options
  const open = new Set<Socket>() // the oldest first
  server.on('secureConnection', (socket) => {
    const [oldest] = open
    if (oldest && open.size >= maxConnections) {
      open.delete(oldest)
      onRefused({ room, reason: 'too_many' })
      oldest.destroy()
    }
    open.add(socket)
    socket.once('close', () => open.delete(socket))
  })
  server.setTimeout(options.stalledMs ?? STALLED_MS, (socket) => {
    if (socket.writableLength > 0) onRefused({ room, reason: 'stalled' })
    socket.destroy()
  })
  server.on('clientError', (error: NodeJS.ErrnoException, socket) => {
    if (error.code === 'ECONNRESET' || !socket.writable) return void socket.destroy()
    const [reason, status] = REFUSALS[error.code ?? ''] ?? ['malformed', '400 Bad Request']
    onRefused({ room, reason })
    socket.end(`HTTP/1.1 ${status}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n`)
    ;(socket as Socket).destroySoon()
  })
  return open
}

/** As Node answers when nobody listens. */
const REFUSALS: Readonly<Record<string, [RefusedHttp['reason'], string]>> = {
  HPE_HEADER_OVERFLOW: ['headers_too_large', '431 Request Header Fields Too Large'],
  HPE_CHUNK_EXTENSIONS_OVERFLOW: ['malformed', '413 Payload Too Large'],
  // more requests came while the answers to earlier ones were not read
  HPE_PAUSED: ['stalled', '400 Bad Request'],
  ERR_HTTP_REQUEST_TIMEOUT: ['late', '408 Request Timeout'],
}
