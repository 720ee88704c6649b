import type { IncomingMessage } from 'node:http'

/** The peer as people write it: an IPv4 address stays one on a dual-stack listener. */
export function clientAddressOf(req: IncomingMessage): string {
  return (req.socket.remoteAddress ?? 'unknown').replace(/^::ffff:(?=\d+\.)/, '')
}
