/** What ingress needs of a TLS ClientHello (RFC 8446 §4.1.2): where it wants to go and what it wants to speak. */
export interface ClientHello {
  /** SNI host name in lower case (RFC 6066 §3); undefined when the client sent none. */
  serverName: string | undefined
  /** ALPN names in the client's order (RFC 7301); empty when it sent none. */
  alpn: readonly string[]
}

/** `incomplete` asks for more bytes; `malformed` can never become a ClientHello. */
export type PeekResult = ClientHello | 'incomplete' | 'malformed'

const RECORD_HANDSHAKE = 22
const HANDSHAKE_CLIENT_HELLO = 1
const EXTENSION_SERVER_NAME = 0
const EXTENSION_ALPN = 16
const MAX_RECORD_BYTES = 16_384
/** Reading begins anew with every segment that arrives: thousands of tiny records would make that expensive. */
const MAX_RECORDS = 64
const MAX_ALPN_NAMES = 32

/** Reads a ClientHello from the first bytes of a connection without consuming them. It may span several records
 *  and any number of TCP segments. Never throws. */
export function peekClientHello(bytes: Buffer): PeekResult {
  const handshake = joinHandshakeRecords(bytes)
  if (typeof handshake === 'string') return handshake
  try {
    return readHello(new Cursor(handshake))
  } catch {
    return 'malformed'
  }
}

/** Strips record headers until the whole handshake message is there (RFC 8446 §5.1). */
function joinHandshakeRecords(bytes: Buffer): Buffer | 'incomplete' | 'malformed' {
  const fragments: Buffer[] = []
  let offset = 0
  let collected = 0
  let wanted = Number.POSITIVE_INFINITY
  while (collected < wanted) {
    if (fragments.length === MAX_RECORDS) return 'malformed'
    const header = bytes.subarray(offset, offset + 5)
    if (header.length > 0 && header[0] !== RECORD_HANDSHAKE) return 'malformed'
    if (header.length > 1 && header[1] !== 3) return 'malformed'
    if (header.length < 5) return 'incomplete'
    const length = header.readUInt16BE(3)
    if (length === 0 || length > MAX_RECORD_BYTES) return 'malformed'
    const fragment = bytes.subarray(offset + 5, offset + 5 + length)
    fragments.push(fragment)
    collected += fragment.length
    offset += 5 + length
    if (wanted === Number.POSITIVE_INFINITY && collected >= 4) {
      const start = Buffer.concat(fragments)
      if (start[0] !== HANDSHAKE_CLIENT_HELLO) return 'malformed'
      wanted = 4 + start.readUIntBE(1, 3)
    }
    if (fragment.length < length && collected < wanted) return 'incomplete'
  }
  return Buffer.concat(fragments).subarray(4, wanted)
}

function readHello(hello: Cursor): ClientHello {
  hello.skip(2 + 32) // legacy_version, random
  hello.skip(hello.u8()) // legacy_session_id
  hello.skip(hello.u16()) // cipher_suites
  hello.skip(hello.u8()) // legacy_compression_methods
  const found: { serverName: string | undefined; alpn: string[] } = { serverName: undefined, alpn: [] }
  if (hello.left === 0) return found
  const extensions = hello.take(hello.u16())
  if (hello.left !== 0) throw new RangeError('bytes follow the extensions')
  const seen = new Set<number>()
  while (extensions.left > 0) {
    const type = extensions.u16()
    const body = extensions.take(extensions.u16())
    if (seen.has(type)) throw new RangeError('an extension appears twice')
    seen.add(type)
    if (type === EXTENSION_SERVER_NAME) found.serverName = readServerName(body)
    if (type === EXTENSION_ALPN) found.alpn = readAlpn(body)
  }
  return found
}

/** Exactly one entry of type host_name; anything else is not sent by anybody honest. */
function readServerName(body: Cursor): string {
  const list = body.take(body.u16())
  const type = list.u8()
  const name = list.bytes(list.u16()).toString('latin1').toLowerCase()
  if (type !== 0 || list.left !== 0 || !/^[a-z0-9._-]{1,253}$/.test(name))
    throw new RangeError('bad server name')
  return name
}

function readAlpn(body: Cursor): string[] {
  const list = body.take(body.u16())
  const names: string[] = []
  while (list.left > 0) {
    if (names.length === MAX_ALPN_NAMES) throw new RangeError('too many ALPN names')
    const length = list.u8()
    if (length === 0) throw new RangeError('an empty ALPN name')
    names.push(list.bytes(length).toString('latin1'))
  }
  return names
}

/** Reads big-endian integers and slices; throws RangeError at the end. */
class Cursor {
  readonly #bytes: Buffer
  #offset = 0

  constructor(bytes: Buffer) {
    this.#bytes = bytes
  }

  get left(): number {
    return this.#bytes.length - this.#offset
  }

  u8(): number {
    return this.bytes(1).readUInt8()
  }

  u16(): number {
    return this.bytes(2).readUInt16BE()
  }

  skip(length: number): void {
    this.bytes(length)
  }

  take(length: number): Cursor {
    return new Cursor(this.bytes(length))
  }

  bytes(length: number): Buffer {
    if (length > this.left) throw new RangeError('out of bytes')
    this.#offset += length
    return this.#bytes.subarray(this.#offset - length, this.#offset)
  }
}
