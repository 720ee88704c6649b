import type { Socket } from 'node:net'
import type { Writable } from 'node:stream'

/** Ends a TCP connection so that its peer sees a reset and not an end of file.
 *
 *  A TLS stream over the socket is never destroyed here: it follows by itself when the socket closes, and destroying
 *  both from inside one of the TLS stream's callbacks makes Node 24 crash (a use after free, reached by any client
 *  that is refused right after its handshake).
 *
 *  Another trap: a reset while the socket's own shutdown is under way is refused (libuv's `uv_tcp_close_reset` says
 *  EINVAL), and Node has forgotten the handle by then: the descriptor stays open for ever. So a shutdown that has
 *  begun is waited for; it takes no longer than a turn of the event loop.
 *
 *  A socket that is a file of this machine knows no reset: its peer hears one where it has sent what was not read, else
 *  an end of file.
 *  @param writer the TLS stream over the socket, where there is one: its shutdown is the one to wait for */
export function resetSocket(socket: Socket, writer: Writable = socket): void {
  const isShuttingDown = writer.writableEnded && !writer.writableFinished && writer.writableLength === 0
  if (isShuttingDown) writer.once('finish', () => reset(socket))
  else reset(socket)
}

function reset(socket: Socket): void {
  try {
    socket.resetAndDestroy()
  } catch (error) {
    if ((error as { code?: string }).code !== 'ERR_INVALID_HANDLE_TYPE') throw error
    socket.destroy()
  }
}
