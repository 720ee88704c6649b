import { SshReader } from '@postern/shared/certs/ssh-wire'
import { PosternError } from '@postern/shared/errors'

/** Reads OpenSSH's list of revoked keys (PROTOCOL.krl) before sshd does. sshd refuses every key when its list is
 *  damaged, and a list can name any key there is: so only certificates of our own CA may stand in it. */

export interface Krl {
  /** Grows with every change at the edge. */
  version: bigint
  /** Seconds since 1970. */
  generatedAt: bigint
  /** Entries of all sections; a range or a bitmap counts once. */
  entries: number
}

export const MAX_KRL_BYTES = 8 * 1024 * 1024

const MAGIC = Buffer.from('SSHKRL\n\0', 'latin1')
const FORMAT_VERSION = 1
const SECTION_CERTIFICATES = 1
const SERIAL_LIST = 0x20
const SERIAL_RANGE = 0x21
const SERIAL_BITMAP = 0x22
const KEY_ID = 0x23
const MAX_KEY_ID_BYTES = 1_024
/** What sshd accepts itself: serials of one bitmap. */
const MAX_BITMAP_BYTES = 0x20000 / 8

/** Revokes nothing, and is older than every other: version 0. */
export const EMPTY_KRL: Buffer = Buffer.concat([
  MAGIC,
  Buffer.of(0, 0, 0, FORMAT_VERSION),
  Buffer.alloc(3 * 8 + 2 * 4),
])

/** @param caBlob the CA whose certificates may be named, as in its `ssh-…` line
 *  @throws KRL_INVALID */
export function parseKrl(bytes: Buffer, caBlob: Buffer): Krl {
  if (bytes.length > MAX_KRL_BYTES) throw invalid('is too large')
  try {
    return readKrl(new SshReader(bytes), caBlob)
  } catch (error) {
    throw error instanceof RangeError ? invalid('is cut off') : error
  }
}

function readKrl(reader: SshReader, caBlob: Buffer): Krl {
  if (!reader.take(MAGIC.length).equals(MAGIC)) throw invalid('does not begin like one')
  if (reader.uint32() !== FORMAT_VERSION) throw invalid('has another format version')
  const version = reader.uint64()
  const generatedAt = reader.uint64()
  reader.uint64() // flags: there are none yet
  reader.string() // reserved
  reader.string() // comment
  let entries = 0
  while (!reader.isAtEnd) {
    if (reader.byte() !== SECTION_CERTIFICATES) throw invalid('names more than certificates of a CA')
    entries += readCertificates(new SshReader(reader.string()), caBlob)
  }
  return { version, generatedAt, entries }
}

/** One section: what is revoked of one CA. An empty CA would mean every CA. */
function readCertificates(reader: SshReader, caBlob: Buffer): number {
  if (!reader.string().equals(caBlob)) throw invalid('names certificates of another CA')
  reader.string() // reserved
  let entries = 0
  while (!reader.isAtEnd) {
    const type = reader.byte()
    entries += readSubsection(type, new SshReader(reader.string()))
  }
  return entries
}

function readSubsection(type: number, reader: SshReader): number {
  let entries = 0
  switch (type) {
    case SERIAL_LIST:
      for (; !reader.isAtEnd; entries++) {
        if (reader.uint64() === 0n) throw invalid('names the serial 0')
      }
      break
    case SERIAL_RANGE: {
      const [from, to] = [reader.uint64(), reader.uint64()]
      if (from === 0n || from > to) throw invalid('has an impossible range of serials')
      entries = 1
      break
    }
    case SERIAL_BITMAP:
      if (reader.uint64() === 0n) throw invalid('names the serial 0')
      if (reader.string().length > MAX_BITMAP_BYTES) throw invalid('has too large a bitmap')
      entries = 1
      break
    case KEY_ID:
      for (; !reader.isAtEnd; entries++) {
        const { length } = reader.string()
        if (length === 0 || length > MAX_KEY_ID_BYTES) throw invalid('has an impossible key id')
      }
      break
    default:
      throw invalid(`has entries of an unknown kind (${type})`)
  }
  if (entries === 0 || !reader.isAtEnd) throw invalid('has a section of a wrong length')
  return entries
}

function invalid(what: string): PosternError {
  return new PosternError('KRL_INVALID', `the list of revoked certificates ${what}`)
}
