import { type KeyObject, randomBytes, subtle } from 'node:crypto'
import { toPem } from '@postern/shared/certs/der'
import type { Authority } from './authorities.ts'
import { composeLeaf, joinSignature } from './leaf-der.ts'
import { hashOfSpki } from './public-key.ts'
import { x509 } from './x509.ts'

/** A certificate under one of the authorities. Times in epoch milliseconds, whole seconds. */
export interface IssuedLeaf {
  /** PEM, leaf only. */
  certificate: string
  /** Lower-case hex. */
  serial: string
  /** SHA-256 of the SubjectPublicKeyInfo in lower-case hex. */
  keyHash: string
  notBefore: number
  notAfter: number
}

export interface LeafProfile {
  /** For people only; nothing decides by it. */
  commonName: string
  /** Goes into the one extended key usage. */
  usage: 'clientAuth' | 'serverAuth'
  names: readonly { type: 'email' | 'url' | 'dns' | 'ip'; value: string }[]
  publicKey: KeyObject
  /** Epoch milliseconds; both are cut to whole seconds, so a certificate never outlives what was asked for. */
  notBefore: number
  notAfter: number
}

/** RFC 5280, appendix A.1. */
const MAX_COMMON_NAME = 64

/** Signs exactly the profile: one leaf, no authority of its own, digitalSignature, one extended usage. */
export async function signLeaf(authority: Authority, profile: LeafProfile): Promise<IssuedLeaf> {
  const spki = profile.publicKey.export({ type: 'spki', format: 'der' })
  const notBefore = wholeSeconds(profile.notBefore)
  const notAfter = wholeSeconds(profile.notAfter)
  const serial = randomSerial()
  const keyHash = hashOfSpki(spki)
  const { usage, names } = profile
  const composed = composeLeaf({
    ...{ serial, notBefore, notAfter, spki, usage, names },
    issuer: authority.subject,
    commonName: shorten(profile.commonName),
    authorityKey: new Uint8Array(authority.keyIdentifier.rawData),
    subjectKey: keyHash, // RFC 7093 §2, method 4
  })
  const signature = await subtle.sign(SIGNING_ALGORITHM, authority.signingKey, composed)
  const certificate = toPem('CERTIFICATE', joinSignature(composed, Buffer.from(signature)))
  return { certificate, serial, keyHash, notBefore, notAfter }
}

export const SIGNING_ALGORITHM = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' } as const

/** 128 random bits of which two are fixed: positive, and never with a leading zero that DER would drop. */
export function randomSerial(): string {
  const bytes = randomBytes(16)
  bytes[0] = (bytes[0]! & 0x7f) | 0x40
  return bytes.toString('hex')
}

/** As JSON with the string type spelled out: the library parses a plain string (`a, OU=admin` would add a
 *  part), and reads a value that begins with `#` as DER. */
export function nameOf(commonName: string): InstanceType<typeof x509.Name> {
  return new x509.Name([{ CN: [{ utf8String: shorten(commonName) }] }])
}

function shorten(commonName: string): string {
  return commonName.length <= MAX_COMMON_NAME ? commonName : `${commonName.slice(0, MAX_COMMON_NAME - 1)}…`
}

/** One general name as Node prints it in `subjectAltName`. Since CVE-2021-44532 values that could be taken for
 *  several names are printed as JSON strings. */
export function printedName(type: 'email' | 'URI' | 'DNS', value: string): string {
  return /[",'\\]/.test(value) ? `${type}:${JSON.stringify(value)}` : `${type}:${value}`
}

function wholeSeconds(ms: number): number {
  return Math.floor(ms / 1_000) * 1_000
}
