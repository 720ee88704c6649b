import type { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { type OpenOptions, openTcp, type Place } from './open-tcp.ts'
import { usesWebSocket } from './transport-kind.ts'

/** How TLS with the edge is carried: on a connection of its own, or inside a WebSocket where something in front of the edge
 *  ends TLS. The inner TLS is the same either way. */

/** @param place the edge itself
 *  @throws what `openTcp` throws · TRANSPORT_REFUSED */
export async function openToRooms(place: Place, options: OpenOptions): Promise<Socket | Duplex> {
  if (!usesWebSocket()) return openTcp(place, options)
  const { openWebSocket } = await import('./web-socket.ts')
  return openWebSocket(place, options)
}
