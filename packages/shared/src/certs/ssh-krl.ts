import { PosternError } from '../errors.ts'
import { SshReader, sshString, sshUint32, sshUint64 } from './ssh-wire.ts'

/** Lists of revoked keys as sshd and ssh read them (OpenSSH's PROTOCOL.krl): certificates by the CA that signed them,
 *  by serial and by key id. sshd refuses every key when its list is damaged, and a list can name any key there is: so
 *  it is read here first, with bounds, and only certificates of our own CAs may stand in it. Nothing in it is signed:
 *  it comes over TLS. */

export interface Krl {
  /** Grows; a reader never goes back. Epoch milliseconds of the last revocation, or one more. */
  version: bigint
  /** Epoch milliseconds, whole seconds. */
  generatedAt: number
  certificates: readonly RevokedCertificates[]
}

/** As it was read. */
export interface ReadKrl extends Krl {
  /** Of all sections; a range or a bitmap, which have no members above, counts once. */
  entries: number
}

export interface RevokedCertificates {
  /** Blob of the CA's public key; empty would mean every CA, and is neither written nor accepted. */
  ca: Buffer
  /** Ascending, each once. */
  serials: readonly bigint[]
  keyIds: readonly string[]
}

const MAGIC = Buffer.from('SSHKRL\n\0', 'latin1')
const FORMAT_VERSION = 1
const SECTION_CERTIFICATES = 1
const SERIAL_LIST = 0x20
const SERIAL_RANGE = 0x21
const SERIAL_BITMAP = 0x22
const KEY_IDS = 0x23
/** sshd reads at most 64 MiB; a million serials are 8. */
export const MAX_KRL_BYTES = 8 * 1024 * 1024
const MAX_KEY_ID_BYTES = 1_024
/** What sshd accepts itself: serials of one bitmap. */
const MAX_BITMAP_BYTES = 0x20000 / 8

export function writeKrl({ version, generatedAt, certificates }: Krl): Buffer {
  const sections = certificates
    .filter(({ serials, keyIds }) => serials.length + keyIds.length > 0)
    .map((revoked) => section(SECTION_CERTIFICATES, writeCertificates(revoked)))
  return Buffer.concat([
    MAGIC,
    sshUint32(FORMAT_VERSION),
    sshUint64(version),
    sshUint64(BigInt(Math.floor(generatedAt / 1_000))),
    sshUint64(0n), // flags
    sshString(''), // reserved
    sshString('postern'),
    ...sections,
  ])
}

function writeCertificates({ ca, serials, keyIds }: RevokedCertificates): Buffer {
  if (ca.length === 0) throw new TypeError('a list for every CA there is')
  const parts = [sshString(ca), sshString('')]
  const ordered = [...new Set(serials)].sort((a, b) => (a < b ? -1 : 1))
  if (ordered[0] !== undefined && ordered[0] <= 0n) throw new TypeError('serial 0 stands for none')
  if (ordered.length > 0) parts.push(section(SERIAL_LIST, Buffer.concat(ordered.map(sshUint64))))
  const ids = [...new Set(keyIds)].sort()
  if (ids.includes('')) throw new TypeError('an empty key id')
  if (ids.length > 0) parts.push(section(KEY_IDS, Buffer.concat(ids.map(sshString))))
  return Buffer.concat(parts)
}

function section(type: number, data: Buffer): Buffer {
  return Buffer.concat([Buffer.of(type), sshString(data)])
}

/** Revokes nothing, and is older than every other: version 0. */
export const EMPTY_KRL: Buffer = writeKrl({ version: 0n, generatedAt: 0, certificates: [] })

/** @param authorities blobs of the CAs whose certificates may be named
 *  @throws KRL_INVALID */
export function parseKrl(bytes: Buffer, authorities: readonly Buffer[]): ReadKrl {
  if (bytes.length > MAX_KRL_BYTES) throw invalid('is too large')
  try {
    return readKrl(new SshReader(bytes), authorities)
  } catch (error) {
    throw error instanceof RangeError ? invalid('is cut off') : error
  }
}

function readKrl(reader: SshReader, authorities: readonly Buffer[]): ReadKrl {
  if (!reader.take(MAGIC.length).equals(MAGIC)) throw invalid('does not begin like one')
  if (reader.uint32() !== FORMAT_VERSION) throw invalid('has another format version')
  const version = reader.uint64()
  const generatedAt = Number(reader.uint64()) * 1_000
  reader.uint64() // flags: there are none yet
  reader.string() // reserved
  reader.string() // comment
  const certificates: RevokedCertificates[] = []
  let entries = 0
  while (!reader.isAtEnd) {
    if (reader.byte() !== SECTION_CERTIFICATES) throw invalid('names more than certificates of a CA')
    const section = readCertificates(new SshReader(reader.string()), authorities)
    certificates.push(section.revoked)
    entries += section.entries
  }
  return { version, generatedAt, certificates, entries }
}

/** One section: what is revoked of one CA. An empty CA would mean every CA. */
function readCertificates(reader: SshReader, authorities: readonly Buffer[]) {
  const ca = reader.string()
  if (ca.length === 0 || !authorities.some((ours) => ours.equals(ca))) {
    throw invalid('names certificates of another CA')
  }
  reader.string() // reserved
  const revoked = { ca, serials: [] as bigint[], keyIds: [] as string[] }
  let entries = 0
  while (!reader.isAtEnd) {
    const type = reader.byte()
    entries += readSubsection(type, new SshReader(reader.string()), revoked)
  }
  return { revoked, entries }
}

function readSubsection(
  type: number,
  reader: SshReader,
  { serials, keyIds }: { serials: bigint[]; keyIds: string[] },
): number {
  let entries = 0
  switch (type) {
    case SERIAL_LIST:
      for (; !reader.isAtEnd; entries++) serials.push(readSerial(reader))
      break
    case SERIAL_RANGE:
      if (readSerial(reader) > reader.uint64()) throw invalid('has an impossible range of serials')
      entries = 1
      break
    case SERIAL_BITMAP:
      readSerial(reader)
      if (reader.string().length > MAX_BITMAP_BYTES) throw invalid('has too large a bitmap')
      entries = 1
      break
    case KEY_IDS:
      for (; !reader.isAtEnd; entries++) keyIds.push(readKeyId(reader))
      break
    default:
      throw invalid(`has entries of an unknown kind (${type})`)
  }
  if (entries === 0 || !reader.isAtEnd) throw invalid('has a section of a wrong length')
  return entries
}

function readSerial(reader: SshReader): bigint {
  const serial = reader.uint64()
  if (serial === 0n) throw invalid('names the serial 0')
  return serial
}

function readKeyId(reader: SshReader): string {
  const bytes = reader.string()
  if (bytes.length === 0 || bytes.length > MAX_KEY_ID_BYTES) throw invalid('has an impossible key id')
  return bytes.toString('utf8')
}

function invalid(what: string): PosternError {
  return new PosternError('KRL_INVALID', `the list of revoked certificates ${what}`)
}
