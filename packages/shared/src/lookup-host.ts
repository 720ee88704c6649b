import dns from 'node:dns'
import type { LookupFunction } from 'node:net'

/** Resolves names like the system, except that `localhost` and everything below it is this machine (RFC 6761
 *  §6.3): Node's own lookup says ENOTFOUND for `edge.localhost`. */
export const lookupHost: LookupFunction = (hostname, options, callback) => {
  if (!isLocalhost(hostname)) return dns.lookup(hostname, options, callback)
  if (options.all) callback(null, [{ address: '127.0.0.1', family: 4 }])
  else callback(null, '127.0.0.1', 4)
}

export function isLocalhost(hostname: string): boolean {
  return /(^|\.)localhost$/i.test(hostname)
}
