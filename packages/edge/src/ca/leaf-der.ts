import { der } from '@postern/shared/certs/der'
import { bytesOfAddress } from '@postern/shared/ip-address'
import { x509 } from './x509.ts'

/** The bytes of a leaf certificate (RFC 5280 §4.1), written and not read: the library makes an object of each part, writes
 *  it, and reads it again, which takes ten times as long. What every leaf says alike is taken from it, once. */
export interface LeafParts {
  /** Lower-case hex, the first bit 0 and the second 1: positive, and without a leading zero. */
  serial: string
  /** Name of the authority, DER. */
  issuer: Uint8Array
  commonName: string
  /** Epoch milliseconds, whole seconds. */
  notBefore: number
  notAfter: number
  /** SubjectPublicKeyInfo, DER. */
  spki: Uint8Array
  usage: 'clientAuth' | 'serverAuth'
  names: readonly { type: 'email' | 'url' | 'dns' | 'ip'; value: string }[]
  /** Extension that names the key of the authority, DER. */
  authorityKey: Uint8Array
  /** Lower-case hex. */
  subjectKey: string
}

const SEQUENCE = 0x30
const SET = 0x31
const OCTET_STRING = 0x04
const UTF8_STRING = 0x0c
const BIT_STRING = 0x03
const INTEGER = 0x02
/** X.509 v3, in its context tag 0. */
const VERSION_3 = der(0xa0, der(INTEGER, Buffer.of(2)))
const EXTENSIONS = 0xa3
const GENERAL_NAMES = { email: 0x81, dns: 0x82, url: 0x86, ip: 0x87 } as const
/** ecdsa-with-SHA256, RFC 5758 §3.2. */
const ECDSA_SHA256 = der(SEQUENCE, Buffer.from('06082a8648ce3d040302', 'hex'))
const COMMON_NAME = Buffer.from('0603550403', 'hex')
const SUBJECT_ALTERNATIVE_NAME = Buffer.from('0603551d11', 'hex')
const SUBJECT_KEY_IDENTIFIER = Buffer.from('0603551d0e', 'hex')

/** No authority of its own, digitalSignature, one extended usage. */
const NO_AUTHORITY = [
  new x509.BasicConstraintsExtension(false, undefined, true),
  new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
]
const FIXED_EXTENSIONS = {
  clientAuth: rawOf(...NO_AUTHORITY, new x509.ExtendedKeyUsageExtension([x509.ExtendedKeyUsage.clientAuth])),
  serverAuth: rawOf(...NO_AUTHORITY, new x509.ExtendedKeyUsageExtension([x509.ExtendedKeyUsage.serverAuth])),
} as const

/** What is signed. */
export function composeLeaf(parts: LeafParts): Buffer {
  const { serial, issuer, commonName, notBefore, notAfter, spki, usage, authorityKey } = parts
  const subjectKey = der(OCTET_STRING, Buffer.from(parts.subjectKey, 'hex'))
  const extensions = [
    FIXED_EXTENSIONS[usage],
    extension(SUBJECT_ALTERNATIVE_NAME, der(SEQUENCE, ...parts.names.map(generalName))),
    authorityKey,
    extension(SUBJECT_KEY_IDENTIFIER, subjectKey),
  ]
  return der(
    SEQUENCE,
    VERSION_3,
    der(INTEGER, Buffer.from(serial, 'hex')),
    ECDSA_SHA256,
    issuer,
    der(SEQUENCE, time(notBefore), time(notAfter)),
    der(SEQUENCE, der(SET, der(SEQUENCE, COMMON_NAME, der(UTF8_STRING, Buffer.from(commonName))))),
    spki,
    der(EXTENSIONS, der(SEQUENCE, ...extensions)),
  )
}

/** @param signature of `composed` by ECDSA with SHA-256, as WebCrypto gives it: both numbers at full length */
export function joinSignature(composed: Buffer, signature: Buffer): Buffer {
  const half = signature.length / 2
  const numbers = [signature.subarray(0, half), signature.subarray(half)].map(unsigned)
  return der(SEQUENCE, composed, ECDSA_SHA256, der(BIT_STRING, Buffer.of(0), der(SEQUENCE, ...numbers)))
}

function unsigned(bytes: Buffer): Buffer {
  const start = bytes.findIndex((byte) => byte !== 0)
  const digits = bytes.subarray(start === -1 ? bytes.length - 1 : start)
  return digits[0]! & 0x80 ? der(INTEGER, Buffer.of(0), digits) : der(INTEGER, digits)
}

function extension(id: Buffer, value: Buffer): Buffer {
  return der(SEQUENCE, id, der(OCTET_STRING, value))
}

/** @throws TypeError for what its string type cannot hold: it would be cut to something else */
function generalName({ type, value }: LeafParts['names'][number]): Buffer {
  if (type === 'ip') return der(GENERAL_NAMES.ip, bytesOfAddress(value))
  if (!/^[\x20-\x7e]+$/.test(value)) throw new TypeError('a name of a certificate is printable ASCII')
  return der(GENERAL_NAMES[type], Buffer.from(value, 'latin1'))
}

/** Two digits of a year until 2049, four from then on (§4.1.2.5). */
function time(ms: number): Buffer {
  const digits = `${new Date(ms).toISOString().slice(0, 19).replace(/\D/g, '')}Z`
  return digits < '2050' ? der(0x17, Buffer.from(digits.slice(2))) : der(0x18, Buffer.from(digits))
}

function rawOf(...extensions: InstanceType<typeof x509.Extension>[]): Buffer {
  return Buffer.concat(extensions.map(({ rawData }) => Buffer.from(rawData)))
}
