/** The header of the PROXY protocol, version 2, as haproxy defines it: who is at the other end of a connection that
 *  somebody passes on. Version 1 is not read or written: its text begins like what a client may send by itself, and
 *  every balancer that speaks it speaks version 2 too.
 *  @see https://www.haproxy.org/download/2.6/doc/proxy-protocol.txt §2.2 */
import { addressOfBytes, bytesOfAddress, type IpEndpoint, plainAddress } from '../ip-address.ts'

/** Begins with what no other protocol begins with, TLS least of all. */
const SIGNATURE = Buffer.from('0d0a0d0a000d0a515549540a', 'hex')
const FIXED_BYTES = 16
/** Of what follows the fixed part. Real ones have some hundred bytes: addresses, and values like ours. */
export const MAX_PROXY_BODY_BYTES = 4_096
export const MAX_PROXY_HEADER_BYTES: number = FIXED_BYTES + MAX_PROXY_BODY_BYTES
const MAX_VALUES = 64

const VERSION_2 = 0x20
const COMMAND_LOCAL = 0
const COMMAND_PROXY = 1
const TCP_OVER_IPV4 = 0x11
const TCP_OVER_IPV6 = 0x21

/** A value of the header, by its type. */
export interface ProxyValue {
  type: number
  value: Buffer
}

export type ProxyHeader = {
  /** Bytes that it takes at the beginning of the connection. */
  length: number
} & (
  | { command: 'proxy'; source: IpEndpoint; destination: IpEndpoint; values: readonly ProxyValue[] }
  /** The sender speaks for itself, as balancers do to see whether somebody is there. */
  | { command: 'local' }
)

/** `incomplete` asks for more bytes; `malformed` can never become a header. */
export type ReadProxyHeader = ProxyHeader | 'incomplete' | 'malformed'

/** Reads a header from the first bytes of a connection. What is not TCP over IPv4 or IPv6 is malformed here. Never
 *  throws, and what it announces is bounded before it is waited for. */
export function readProxyHeader(bytes: Buffer): ReadProxyHeader {
  const signature = bytes.subarray(0, SIGNATURE.length)
  if (!signature.equals(SIGNATURE.subarray(0, signature.length))) return 'malformed'
  if (bytes.length > 12 && (bytes[12]! & 0xf0) !== VERSION_2) return 'malformed'
  const command = bytes.length > 12 ? bytes[12]! & 0x0f : COMMAND_PROXY
  if (command !== COMMAND_LOCAL && command !== COMMAND_PROXY) return 'malformed'
  const addressBytes = bytes.length > 13 ? addressBytesOf(bytes[13]!) : 4
  if (command === COMMAND_PROXY && addressBytes === undefined) return 'malformed'
  if (bytes.length < FIXED_BYTES) return 'incomplete'
  const bodyBytes = bytes.readUInt16BE(14)
  if (bodyBytes > MAX_PROXY_BODY_BYTES) return 'malformed'
  if (command === COMMAND_PROXY && bodyBytes < addressBytes! * 2 + 4) return 'malformed'
  const length = FIXED_BYTES + bodyBytes
  if (bytes.length < length) return 'incomplete'
  if (command === COMMAND_LOCAL) return { command: 'local', length } // its body means nothing, §2.2
  return readProxied(bytes.subarray(FIXED_BYTES, length), addressBytes!) ?? 'malformed'
}

/** What stands in front of a flow towards its service.
 *  @param values of at most 4,000 bytes together */
export function writeProxyHeader(
  source: IpEndpoint,
  destination: IpEndpoint,
  values: readonly ProxyValue[] = [],
): Buffer {
  const ends = [source, destination].map(({ host }) => bytesOfAddress(plainAddress(host)))
  const isIpv4 = ends.every(({ length }) => length === 4)
  const body = Buffer.concat([
    ...ends.map((address) => (isIpv4 || address.length === 16 ? address : mapped(address))),
    uint16(source.port),
    uint16(destination.port),
    ...values.flatMap(({ type, value }) => [Buffer.of(type), uint16(value.length), value]),
  ])
  if (body.length > MAX_PROXY_BODY_BYTES) throw new RangeError('the PROXY header is too long')
  return frame(COMMAND_PROXY, isIpv4 ? TCP_OVER_IPV4 : TCP_OVER_IPV6, body)
}

/** For a connection of one's own to a service that expects a header, such as a look whether it is there. */
export function writeLocalHeader(): Buffer {
  return frame(COMMAND_LOCAL, 0, Buffer.alloc(0))
}

function addressBytesOf(family: number): 4 | 16 | undefined {
  if (family === TCP_OVER_IPV4) return 4
  return family === TCP_OVER_IPV6 ? 16 : undefined
}

function readProxied(body: Buffer, addressBytes: 4 | 16): ProxyHeader | undefined {
  const addresses = addressBytes * 2
  const values = readValues(body.subarray(addresses + 4))
  return (
    values && {
      command: 'proxy',
      length: FIXED_BYTES + body.length,
      source: {
        host: plainAddress(addressOfBytes(body.subarray(0, addressBytes))),
        port: body.readUInt16BE(addresses),
      },
      destination: {
        host: plainAddress(addressOfBytes(body.subarray(addressBytes, addresses))),
        port: body.readUInt16BE(addresses + 2),
      },
      values,
    }
  )
}

function readValues(bytes: Buffer): ProxyValue[] | undefined {
  const values: ProxyValue[] = []
  for (let offset = 0; offset < bytes.length; ) {
    if (values.length === MAX_VALUES || bytes.length - offset < 3) return undefined
    const start = offset + 3
    const end = start + bytes.readUInt16BE(offset + 1)
    if (end > bytes.length) return undefined
    values.push({ type: bytes[offset]!, value: bytes.subarray(start, end) })
    offset = end
  }
  return values
}

function frame(command: number, family: number, body: Buffer): Buffer {
  return Buffer.concat([SIGNATURE, Buffer.of(VERSION_2 | command, family), uint16(body.length), body])
}

function mapped(ipv4: Buffer): Buffer {
  return Buffer.concat([Buffer.alloc(10), Buffer.of(0xff, 0xff), ipv4])
}

function uint16(value: number): Buffer {
  const bytes = Buffer.alloc(2)
  bytes.writeUInt16BE(value)
  return bytes
}
