import { createPublicKey, generateKeyPairSync, type KeyObject, sign } from 'node:crypto'
import { der, toPem } from './der.ts'

/** PKCS#10 (RFC 2986) for a P-256 key. Subject and attributes are empty, because the edge composes those itself. */
export function createCsr(privateKey: KeyObject): string {
  const publicKey = createPublicKey(privateKey).export({ type: 'spki', format: 'der' })
  const info = der(0x30, Buffer.from('020100', 'hex'), der(0x30), publicKey, der(0xa0))
  const signature = sign('sha256', info, privateKey)
  return toPem(
    'CERTIFICATE REQUEST',
    der(0x30, info, der(0x30, ECDSA_SHA256), der(0x03, Buffer.of(0), signature)),
  )
}

/** ecdsa-with-SHA256, RFC 5758 §3.2. */
const ECDSA_SHA256 = Buffer.from('06082a8648ce3d040302', 'hex')

/** A new key, and a request for it. */
export function generateKey(): { keyPem: string; csr: string } {
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  return {
    keyPem: privateKey.export({ type: 'pkcs8', format: 'pem' }) as string,
    csr: createCsr(privateKey),
  }
}
