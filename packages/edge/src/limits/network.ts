import { BlockList, isIP, isIPv6 } from 'node:net'
import { bytesOfAddress, isMapped, parseIpv6, plainAddress } from '@postern/shared/ip-address'

/** What counts as one address: an IPv6 subscriber owns a /64 at least. An IPv4 address is one, however it is written: a
 *  listener for both kinds says `::ffff:203.0.113.7`, and all of those are in one /64. */
export function networkOf(address: string): string {
  if (!isIPv6(address)) return address
  const groups = parseIpv6(address)
  if (isMapped(groups)) return plainAddress(address)
  return groups
    .slice(0, 4)
    .map((group) => group.toString(16))
    .join(':')
}

/** A network or a single address. Bits behind the prefix must be zero: `10.1.2.3/8` is more often a slip of the hand
 *  than meant.
 *  @throws Error that names the text */
export function parseNetwork(text: string): string {
  const [base = '', bits, ...rest] = text.split('/')
  const width = isIP(base) === 0 ? 0 : isIPv6(base) ? 128 : 32
  const length = bits === undefined ? width : /^\d{1,3}$/.test(bits) ? Number(bits) : Number.NaN
  if (width === 0 || rest.length > 0 || base.includes('%') || !(length >= 0 && length <= width)) {
    throw new Error(`${JSON.stringify(text)} is not a network like 10.0.0.0/8`)
  }
  const value = BigInt(`0x${bytesOfAddress(base).toString('hex')}`)
  if (BigInt.asUintN(width - length, value) !== 0n) {
    throw new Error(`${JSON.stringify(text)} has bits set behind its prefix of ${length}`)
  }
  return text.toLowerCase()
}

/** Whether an address is in one of these networks, as `parseNetwork` lets them through. An IPv4 address that came over
 *  IPv6 is an IPv4 address. */
export function openNetworks(networks: readonly string[]): (address: string) => boolean {
  const list = new BlockList()
  for (const network of networks) {
    const [base = '', bits] = network.split('/')
    const family = isIPv6(base) ? 'ipv6' : 'ipv4'
    list.addSubnet(base, bits === undefined ? (family === 'ipv6' ? 128 : 32) : Number(bits), family)
  }
  return (address) => {
    const plain = plainAddress(address)
    return list.check(plain, isIPv6(plain) ? 'ipv6' : 'ipv4')
  }
}
