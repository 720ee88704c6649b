import { formatAddress } from '@postern/shared/ip-address'
import type { Context } from 'hono'
import type { ApiEnv } from './parts.ts'

/** The same without the port. */
export function clientHost(c: Context<ApiEnv>): string {
  return c.env.incoming.socket.remoteAddress ?? 'unknown'
}

/** Where a request came from: the TCP peer. Forwarding headers are not believed. */
export function clientAddress(c: Context<ApiEnv>): string {
  const { remoteAddress, remotePort } = c.env.incoming.socket
  return formatAddress(remoteAddress ?? 'unknown', remotePort)
}
