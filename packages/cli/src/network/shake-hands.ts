import { once } from 'node:events'
import type { TLSSocket } from 'node:tls'

/** Resolves once the handshake is done. A connection that closes before, without a word, is one that was lost: what
 *  carries TLS need not say why.
 *  @throws Node's own errors · the reason of the signal */
export async function shakeHands(socket: TLSSocket, signal: AbortSignal): Promise<void> {
  const onClose = () => socket.emit('error', Object.assign(new Error('closed'), { code: 'ECONNRESET' }))
  socket.once('close', onClose)
  try {
    await once(socket, 'secureConnect', { signal })
  } finally {
    socket.off('close', onClose)
  }
}
