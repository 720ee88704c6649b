import { SshReader, sshString, sshUint32, sshUint64 } from './ssh-wire.ts'

/** Lists of revoked keys as sshd and ssh read them (OpenSSH's PROTOCOL.krl): certificates by the CA that signed them,
 *  by serial and by key id. A list that a server cannot read locks everybody out, so it is read here with bounds and
 *  before it is put in place. Nothing in it is signed: it comes over TLS. */

export interface Krl {
  /** Grows; a reader never goes back. Epoch milliseconds of the last revocation, or one more. */
  version: bigint
  /** Epoch milliseconds, whole seconds. */
  generatedAt: number
  certificates: readonly RevokedCertificates[]
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
const KEY_IDS = 0x23
/** sshd reads at most 64 MiB; a million serials are 8. */
const MAX_KRL_BYTES = 16 * 1024 * 1024

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

/** Reads what `writeKrl` writes and nothing else: a list with sections by key or hash, with bitmaps, for every CA or
 *  with a signature is refused, whatever OpenSSH would do with it.
 *  @throws RangeError */
export function parseKrl(bytes: Buffer): Krl {
  if (bytes.length > MAX_KRL_BYTES) throw new RangeError('the list is too long')
  const reader = new SshReader(bytes)
  if (!reader.take(MAGIC.length).equals(MAGIC)) throw new RangeError('this is no list of revoked keys')
  if (reader.uint32() !== FORMAT_VERSION) throw new RangeError('the list has another format')
  const version = reader.uint64()
  const generated = reader.uint64()
  if (reader.uint64() !== 0n) throw new RangeError('the list has flags')
  reader.string() // reserved
  reader.string() // comment
  const certificates: RevokedCertificates[] = []
  while (!reader.isAtEnd) {
    if (reader.byte() !== SECTION_CERTIFICATES) throw new RangeError('the list names more than certificates')
    certificates.push(readCertificates(new SshReader(reader.string())))
  }
  return { version, generatedAt: Number(generated) * 1_000, certificates }
}

function readCertificates(reader: SshReader): RevokedCertificates {
  const ca = reader.string()
  if (ca.length === 0) throw new RangeError('the list speaks for every CA')
  reader.string() // reserved
  const serials: bigint[] = []
  const keyIds: string[] = []
  while (!reader.isAtEnd) {
    const type = reader.byte()
    const data = new SshReader(reader.string())
    if (type === SERIAL_LIST) while (!data.isAtEnd) serials.push(data.uint64())
    else if (type === KEY_IDS) while (!data.isAtEnd) keyIds.push(data.string().toString('utf8'))
    else if (type === SERIAL_RANGE) throw new RangeError('the list has ranges of serials')
    else throw new RangeError('the list has a kind of entry that is not known')
  }
  if (serials.includes(0n)) throw new RangeError('the list has serial 0')
  return { ca, serials, keyIds }
}
