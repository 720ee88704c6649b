import net, { isIP, isIPv4, isIPv6 } from 'node:net'

/** An IP address with a port: one end of a TCP connection. */
export interface IpEndpoint {
  /** Without brackets. */
  host: string
  port: number
}

/** `203.0.113.7:50514` or `[2001:db8::7]:50514`. */
export function formatAddress(host: string, port: number | undefined): string {
  return host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`
}

/** As `formatAddress` writes it, with a plain address.
 *  @returns undefined for anything else */
export function parseEndpoint(text: string): IpEndpoint | undefined {
  const [, ipv6, ipv4, digits] = /^(?:\[([^\]]{1,100})\]|([\d.]{7,15})):(\d{1,5})$/.exec(text) ?? []
  const host = ipv6 ?? ipv4 ?? ''
  const port = Number(digits)
  const isRight = ipv6 === undefined ? isIPv4(host) : isIPv6(host)
  return isRight && port <= 65_535 ? { host: plainAddress(host), port } : undefined
}

/** One way to write one address: an IPv4 address stays one where a listener for both kinds says `::ffff:203.0.113.7`,
 *  and a zone, which means something on its own machine only, is left out. What is no address comes back as it is. */
export function plainAddress(address: string): string {
  if (isIP(address) !== 6) return address
  const groups = parseIpv6(address)
  return isMapped(groups) ? groups.slice(6).flatMap(toBytes).join('.') : formatIpv6(groups)
}

/** The 4 or 16 bytes of a valid address. */
export function bytesOfAddress(address: string): Buffer {
  return Buffer.from(isIPv4(address) ? address.split('.').map(Number) : parseIpv6(address).flatMap(toBytes))
}

/** @param bytes 4 or 16 */
export function addressOfBytes(bytes: Buffer): string {
  if (bytes.length === 4) return bytes.join('.')
  return formatIpv6(Array.from({ length: 8 }, (_, index) => bytes.readUInt16BE(index * 2)))
}

/** The eight numbers of a valid IPv6 address. */
export function parseIpv6(address: string): number[] {
  const plain = address.split('%', 1)[0]!
  const [head = '', tail] = plain.replace(/\d+\.\d+\.\d+\.\d+$/, toGroups).split('::')
  const left = readGroups(head)
  const right = readGroups(tail ?? '')
  const zeros = tail === undefined ? 0 : 8 - left.length - right.length
  return [...left, ...Array<number>(zeros).fill(0), ...right]
}

/** Whether it stands for an IPv4 address, which is in its last two groups. */
export function isMapped(groups: readonly number[]): boolean {
  return groups.slice(0, 5).every((group) => group === 0) && groups[5] === 0xffff
}

function formatIpv6(groups: readonly number[]): string {
  const address = groups.map((group) => group.toString(16)).join(':')
  return new net.SocketAddress({ address, family: 'ipv6' }).address
}

function toBytes(group: number): number[] {
  return [group >> 8, group & 0xff]
}

function readGroups(text: string): number[] {
  return text === '' ? [] : text.split(':').map((group) => Number.parseInt(group, 16))
}

function toGroups(ipv4: string): string {
  const [a, b, c, d] = ipv4.split('.').map(Number) as [number, number, number, number]
  return `${((a << 8) | b).toString(16)}:${((c << 8) | d).toString(16)}`
}
