import { verify } from 'node:crypto'
import { PosternError } from '../errors.ts'
import {
  decodeBase64,
  parseSshPublicKeyBlob,
  readKeyParts,
  readKeyType,
  type SshKeyType,
  type SshPublicKey,
} from './ssh-key.ts'
import { SshReader, sshInteger, sshString } from './ssh-wire.ts'

/** Certificates of OpenSSH (PROTOCOL.certkeys), read and verified without a library: the one that writes them takes
 *  a forged certificate for good. Stricter than OpenSSH where it is lenient: no principals are no principals. */

export type SshCertificateKind = 'user' | 'host'

export interface SshCertificate {
  kind: SshCertificateKind
  subject: SshPublicKey
  serial: bigint
  keyId: string
  principals: readonly string[]
  /** Epoch milliseconds, whole seconds; the last one is the first moment at which it is no longer valid. */
  notBefore: number
  notAfter: number
  criticalOptions: ReadonlyMap<string, string>
  extensions: readonly string[]
  /** Who says so, if the signature holds. */
  ca: SshPublicKey
  /** The bytes that were signed, and what was made of them. */
  signed: Buffer
  signature: { algorithm: string; blob: Buffer }
}

const MAX_CERTIFICATE_CHARACTERS = 32_768
const MAX_PRINCIPALS = 256
const MAX_OPTIONS = 64
const SUFFIX = '-cert-v01@openssh.com'
const KINDS: Readonly<Record<number, SshCertificateKind>> = { 1: 'user', 2: 'host' }

/** Reads one line. Says nothing about who signed it.
 *  @throws CERTIFICATE_REFUSED malformed, or of a kind that Postern does not issue */
export function parseSshCertificate(line: string): SshCertificate {
  try {
    if (line.length > MAX_CERTIFICATE_CHARACTERS) throw refused('is too long')
    const [name, encoded] = line.trim().split(/[ \t]+/, 2)
    if (encoded === undefined || /[\r\n]/.test(line.trim())) throw refused('is not one line of OpenSSH')
    const certificate = readCertificate(decodeBase64(encoded))
    if (name !== `${certificate.subject.type}${SUFFIX}`) throw refused('says that it is of another type')
    return certificate
  } catch (cause) {
    if (cause instanceof PosternError && cause.code === 'CERTIFICATE_REFUSED') throw cause
    throw refused('is malformed', cause)
  }
}

function readCertificate(bytes: Buffer): SshCertificate {
  const reader = new SshReader(bytes)
  const name = reader.string().toString('latin1')
  if (!name.endsWith(SUFFIX)) throw refused('is no certificate')
  const type = readKeyType(name.slice(0, -SUFFIX.length))
  reader.string() // nonce
  const partsStart = reader.offset
  readKeyParts(type, reader)
  const subject = parseSshPublicKeyBlob(
    Buffer.concat([sshString(type), bytes.subarray(partsStart, reader.offset)]),
  )
  const serial = reader.uint64()
  const kind = KINDS[reader.uint32()]
  if (!kind) throw refused('is neither for a user nor for a host')
  const keyId = readText(reader.string())
  const principals = readPrincipals(reader.string())
  const [notBefore, notAfter] = [readTime(reader.uint64()), readTime(reader.uint64())]
  const criticalOptions = readOptions(reader.string())
  const extensions = [...readOptions(reader.string()).keys()]
  if (reader.string().length > 0) throw refused('has something where nothing may be')
  const ca = parseSshPublicKeyBlob(reader.string())
  const signed = bytes.subarray(0, reader.offset)
  const signature = readSignature(reader.string())
  reader.end()
  return {
    kind,
    subject,
    serial,
    keyId,
    principals,
    notBefore,
    notAfter,
    criticalOptions,
    extensions,
    ca,
    signed,
    signature,
  }
}

function readPrincipals(bytes: Buffer): string[] {
  const reader = new SshReader(bytes)
  const principals: string[] = []
  while (!reader.isAtEnd) {
    if (principals.length === MAX_PRINCIPALS) throw refused('names too many principals')
    principals.push(readText(reader.string()))
  }
  return principals
}

/** Names in ascending order, each once, as the format demands. */
function readOptions(bytes: Buffer): Map<string, string> {
  const reader = new SshReader(bytes)
  const options = new Map<string, string>()
  let previous: Buffer = Buffer.alloc(0)
  while (!reader.isAtEnd) {
    const name = reader.string()
    if (options.size === MAX_OPTIONS) throw refused('has too many options')
    if (Buffer.compare(previous, name) >= 0) throw refused('has options out of order')
    options.set(readText(name), readOptionValue(reader.string()))
    previous = name
  }
  return options
}

function readOptionValue(data: Buffer): string {
  if (data.length === 0) return ''
  const reader = new SshReader(data)
  const value = readText(reader.string())
  reader.end()
  return value
}

const UTF8 = new TextDecoder('utf-8', { fatal: true })

function readText(bytes: Buffer): string {
  return UTF8.decode(bytes)
}

/** "Forever" is 2^64 - 1. */
function readTime(seconds: bigint): number {
  return seconds > BigInt(Number.MAX_SAFE_INTEGER) / 1_000n
    ? Number.POSITIVE_INFINITY
    : Number(seconds) * 1_000
}

function readSignature(bytes: Buffer): SshCertificate['signature'] {
  const reader = new SshReader(bytes)
  const signature = { algorithm: reader.string().toString('latin1'), blob: reader.string() }
  reader.end()
  return signature
}

export interface SshExpectation {
  /** Whom to believe. */
  authorities: readonly Pick<SshPublicKey, 'blob'>[]
  kind: SshCertificateKind
  /** Must be among those it names; left out, any certificate with at least one principal will do. */
  principal?: string
  /** Epoch milliseconds. */
  now: number
}

const KNOWN_CRITICAL_OPTIONS: ReadonlySet<string> = new Set(['force-command', 'source-address'])

/** Whether sshd, or ssh, may believe it: signed by one of these keys, of this kind, valid now, names this principal,
 *  and demands nothing that is not understood.
 *  @throws CERTIFICATE_REFUSED · CERTIFICATE_EXPIRED */
export function verifySshCertificate(certificate: SshCertificate, expected: SshExpectation): void {
  const { ca, kind, principals, notBefore, notAfter, criticalOptions } = certificate
  if (!expected.authorities.some(({ blob }) => blob.equals(ca.blob))) throw refused('is signed by a stranger')
  if (!isSignatureGood(certificate)) throw refused('has a wrong signature')
  if (kind !== expected.kind) throw refused(`is for a ${kind}`)
  if (principals.length === 0) throw refused('names nobody')
  if (expected.principal !== undefined && !principals.includes(expected.principal)) {
    throw refused(`does not name ${JSON.stringify(expected.principal)}`)
  }
  for (const option of criticalOptions.keys()) {
    if (kind === 'host' || !KNOWN_CRITICAL_OPTIONS.has(option)) throw refused('demands something unknown')
  }
  if (expected.now < notBefore) throw refused('is not valid yet')
  if (expected.now >= notAfter)
    throw new PosternError('CERTIFICATE_EXPIRED', 'the ssh certificate has expired')
}

/** The algorithm is what the CA's key allows, never only what the signature says; SHA-1 is nothing. */
const SIGNATURES: Readonly<Record<SshKeyType, Readonly<Record<string, string | null>>>> = {
  'ssh-ed25519': { 'ssh-ed25519': null },
  'ecdsa-sha2-nistp256': { 'ecdsa-sha2-nistp256': 'sha256' },
  'ssh-rsa': { 'rsa-sha2-256': 'sha256', 'rsa-sha2-512': 'sha512' },
}

function isSignatureGood({ ca, signed, signature }: SshCertificate): boolean {
  const hashes = SIGNATURES[ca.type]
  if (!Object.hasOwn(hashes, signature.algorithm)) return false
  const hash = hashes[signature.algorithm]!
  try {
    return ca.type === 'ecdsa-sha2-nistp256'
      ? verify(hash, signed, { key: ca.keyObject, dsaEncoding: 'ieee-p1363' }, toRaw(signature.blob))
      : verify(hash, signed, ca.keyObject, signature.blob)
  } catch {
    return false
  }
}

/** Two integers side by side, 32 bytes each (RFC 5656 §3.1.2). */
function toRaw(blob: Buffer): Buffer {
  const reader = new SshReader(blob)
  const halves = [reader.positiveInteger(), reader.positiveInteger()].map((integer) => {
    if (integer.length > 32) throw new RangeError('an integer of the signature is too long')
    return Buffer.concat([Buffer.alloc(32 - integer.length), integer])
  })
  reader.end()
  return Buffer.concat(halves)
}

/** What stands behind the signed part. @param raw node:crypto's signature: SHA-512 for RSA, SHA-256 and
 *  `ieee-p1363` for ECDSA */
export function encodeSshSignature(type: SshKeyType, raw: Buffer): Buffer {
  switch (type) {
    case 'ssh-ed25519':
      return Buffer.concat([sshString('ssh-ed25519'), sshString(raw)])
    case 'ssh-rsa':
      return Buffer.concat([sshString('rsa-sha2-512'), sshString(raw)])
    case 'ecdsa-sha2-nistp256': {
      const integers = Buffer.concat([sshInteger(raw.subarray(0, 32)), sshInteger(raw.subarray(32))])
      return Buffer.concat([sshString('ecdsa-sha2-nistp256'), sshString(integers)])
    }
  }
}

function refused(reason: string, cause?: unknown): PosternError {
  return new PosternError('CERTIFICATE_REFUSED', `the ssh certificate ${reason}`, { cause })
}
