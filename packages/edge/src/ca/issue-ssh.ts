import { randomBytes, sign } from 'node:crypto'
import {
  encodeSshSignature,
  parseSshCertificate,
  type SshCertificateKind,
  verifySshCertificate,
} from '@postern/shared/certs/ssh-certificate'
import { formatSshPublicKey, type SshPublicKey, sshFingerprint } from '@postern/shared/certs/ssh-key'
import type { SshPrincipal } from '@postern/shared/certs/ssh-principals'
import { sshString } from '@postern/shared/certs/ssh-wire'
import { PosternError } from '@postern/shared/errors'
import type { Certificate, Signature } from 'sshpk'
import type { SshAuthority } from './ssh-authorities.ts'

/** What an ssh certificate says. It is signed as it stands: whoever asks has decided. */
export interface SshCertificateProfile {
  kind: SshCertificateKind
  subject: SshPublicKey
  keyId: string
  /** At least one: OpenSSH takes none for everybody. */
  principals: readonly SshPrincipal[]
  /** Epoch milliseconds; whole seconds are written, never later than asked for. */
  notBefore: number
  notAfter: number
  extensions?: readonly string[]
  criticalOptions?: Readonly<Record<string, string>>
}

export interface IssuedSshCertificate {
  /** One line of OpenSSH. */
  certificate: string
  /** Random, never 0. */
  serial: bigint
  /** `SHA256:…` of the subject's key. */
  fingerprint: string
  notBefore: number
  notAfter: number
}

/** Signs with the authority of the same kind, and reads the result again with the verifier that sshd's view is
 *  modelled on: what it refuses does not leave the edge.
 *  @throws CERTIFICATE_REFUSED */
export async function issueSshCertificate(
  authority: SshAuthority,
  profile: SshCertificateProfile,
): Promise<IssuedSshCertificate> {
  if (authority.kind !== profile.kind) {
    throw new TypeError(`a certificate for a ${profile.kind} under the CA for ${authority.kind}s`)
  }
  if (profile.principals.length === 0) throw new TypeError('a certificate that names nobody')
  const serial = randomSshSerial()
  const notBefore = Math.floor(profile.notBefore / 1_000) * 1_000
  const notAfter = Math.floor(profile.notAfter / 1_000) * 1_000
  if (notAfter <= notBefore) throw new PosternError('SESSION_ENDED', 'nothing is left of the session')
  const unsigned = await compose(authority, profile, { serial, notBefore, notAfter })
  const certificate = await signWith(authority, unsigned)
  const read = parseSshCertificate(certificate)
  verifySshCertificate(read, { authorities: [authority.publicKey], kind: profile.kind, now: notBefore })
  return { certificate, serial, fingerprint: sshFingerprint(profile.subject.blob), notBefore, notAfter }
}

/** 64 bits, as the format has them. */
export function randomSshSerial(): bigint {
  for (;;) {
    const serial = randomBytes(8).readBigUInt64BE()
    if (serial !== 0n) return serial // 0 means "has none"
  }
}

/** The library's own `createCertificate` knows neither options nor key ids. */
async function compose(
  authority: SshAuthority,
  profile: SshCertificateProfile,
  { serial, notBefore, notAfter }: { serial: bigint; notBefore: number; notAfter: number },
): Promise<Certificate> {
  const { default: sshpk } = await import('sshpk') // 40 ms, and only once somebody uses ssh
  const toKey = (key: SshPublicKey) => sshpk.parseKey(formatSshPublicKey(key), 'ssh')
  const toIdentity = profile.kind === 'user' ? sshpk.identityForUser : sshpk.identityForHost
  const serialBytes = Buffer.alloc(8) // one byte alone is read as 2^56
  serialBytes.writeBigUInt64BE(serial)
  const openssh = { keyId: profile.keyId, exts: toOptions(profile), nonce: randomBytes(32) }
  return new sshpk.Certificate({
    subjects: profile.principals.map((principal) => toIdentity(principal)),
    subjectKey: toKey(profile.subject),
    issuer: sshpk.identityForHost('postern-ca'), // not written
    issuerKey: toKey(authority.publicKey),
    signatures: { openssh } as never,
    serial: serialBytes,
    validFrom: new Date(notBefore),
    validUntil: new Date(notAfter),
  })
}

/** Sorted by name: the format demands it and the library leaves it to us. */
function toOptions({ extensions = [], criticalOptions = {} }: SshCertificateProfile) {
  const critical = Object.entries(criticalOptions).map(([name, value]) => ({
    critical: true,
    name,
    data: sshString(value),
  }))
  const plain = extensions.map((name) => ({ critical: false, name, data: Buffer.alloc(0) }))
  const byName = (a: { name: string }, b: { name: string }) => (a.name < b.name ? -1 : 1)
  return [...critical.sort(byName), ...plain.sort(byName)]
}

/** The library's own signatures are SHA-1 for RSA and sometimes malformed for ECDSA: it gets finished bytes. */
async function signWith({ publicKey, signingKey }: SshAuthority, certificate: Certificate): Promise<string> {
  const { default: sshpk } = await import('sshpk')
  const { type } = publicKey
  const makeSignature = (bytes: Buffer): Buffer => {
    if (type === 'ssh-ed25519') return encodeSshSignature(type, sign(null, bytes, signingKey))
    if (type === 'ssh-rsa') return encodeSshSignature(type, sign('sha512', bytes, signingKey))
    return encodeSshSignature(type, sign('sha256', bytes, { key: signingKey, dsaEncoding: 'ieee-p1363' }))
  }
  const format = sshpk.Certificate.formats.openssh as unknown as OpenSshFormat
  await new Promise<void>((resolve, reject) => {
    format.signAsync(
      certificate,
      (bytes, done) => {
        const signature = makeSignature(bytes)
        done(undefined, { toBuffer: () => signature } as unknown as Signature)
      },
      (error) => (error ? reject(error) : resolve()),
    )
  })
  return certificate.toString('openssh').trim()
}

/** The types know the formats by their name only. */
interface OpenSshFormat {
  signAsync(
    certificate: Certificate,
    sign: (bytes: Buffer, done: (error: Error | undefined, signature: Signature) => void) => void,
    done: (error?: Error) => void,
  ): void
}
