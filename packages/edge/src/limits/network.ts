import net from 'node:net'
import { isMapped, parseIpv6, plainAddress } from '@postern/shared/ip-address'

/** What counts as one address: an IPv6 subscriber owns a /64 at least. An IPv4 address is one, however it is written: a
 *  listener for both kinds says `::ffff:203.0.113.7`, and all of those are in one /64. */
export function networkOf(address: string): string {
  if (!net.isIPv6(address)) return address
  const groups = parseIpv6(address)
  if (isMapped(groups)) return plainAddress(address)
  return groups
    .slice(0, 4)
    .map((group) => group.toString(16))
    .join(':')
}
