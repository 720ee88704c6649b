import { createPublicKey, type KeyObject, sign } from 'node:crypto'

/** PKCS#10 (RFC 2986) for a P-256 key, in the few lines of DER it takes: the library that could write it costs
 *  80 ms to load. Subject and attributes are empty, because the edge composes those itself. */
export function createCsr(privateKey: KeyObject): string {
  const publicKey = createPublicKey(privateKey).export({ type: 'spki', format: 'der' })
  const info = der(0x30, Buffer.from('020100', 'hex'), der(0x30), publicKey, der(0xa0))
  const signature = sign('sha256', info, privateKey)
  return toPem(
    'CERTIFICATE REQUEST',
    der(0x30, info, der(0x30, ECDSA_SHA256), der(0x03, Buffer.of(0), signature)),
  )
}

export function toPem(label: string, bytes: Buffer): string {
  const lines = bytes.toString('base64').match(/.{1,64}/g) ?? []
  return `-----BEGIN ${label}-----\n${lines.join('\n')}\n-----END ${label}-----\n`
}

/** ecdsa-with-SHA256, RFC 5758 §3.2. */
const ECDSA_SHA256 = Buffer.from('06082a8648ce3d040302', 'hex')

function der(tag: number, ...parts: Buffer[]): Buffer {
  const body = Buffer.concat(parts)
  return Buffer.concat([Buffer.of(tag), derLength(body.length), body])
}

/** Lengths up to 65,535 (X.690 §8.1.3). */
function derLength(length: number): Buffer {
  if (length < 0x80) return Buffer.of(length)
  if (length < 0x100) return Buffer.of(0x81, length)
  return Buffer.of(0x82, length >> 8, length & 0xff)
}
