import { createPublicKey, generateKeyPairSync, type KeyObject, randomBytes, sign } from 'node:crypto'
import { toPem } from '@postern/shared/certs/der'

/** X.509 certificates for the fake edge, in the few lines of DER that tests need (RFC 5280 §4.1). */

export interface TestCa {
  name: string
  key: KeyObject
  certificatePem: string
}

export interface Leaf {
  spki: Buffer
  dnsNames?: string[]
  uris?: string[]
  usage: 'serverAuth' | 'clientAuth'
  notBefore?: number
  notAfter?: number
}

const ECDSA_SHA256 = Buffer.from('300a06082a8648ce3d040302', 'hex')
const HOUR_MS = 3_600_000

export function createCa(name: string): TestCa {
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const spki = publicKey.export({ type: 'spki', format: 'der' })
  const validity: [number, number] = [Date.now() - HOUR_MS, Date.now() + HOUR_MS]
  const content = { issuer: name, subject: name, key: privateKey, spki, validity, extensions: [IS_CA] }
  return { name, key: privateKey, certificatePem: certify(content).pem }
}

/** The CA as another one signs it. */
export function crossSign(
  ca: TestCa,
  by: TestCa,
  { notBefore = Date.now() - HOUR_MS, notAfter = Date.now() + HOUR_MS, isCa = true } = {},
): string {
  const spki = createPublicKey(ca.key).export({ type: 'spki', format: 'der' })
  const validity: [number, number] = [notBefore, notAfter]
  const content = { issuer: by.name, subject: ca.name, key: by.key, spki, validity }
  return certify({ ...content, extensions: isCa ? [IS_CA] : [] }).pem
}

export function issueLeaf(
  ca: TestCa,
  leaf: Leaf,
): { pem: string; serial: string; notBefore: number; notAfter: number } {
  const notBefore = leaf.notBefore ?? Date.now() - 60_000
  const notAfter = leaf.notAfter ?? Date.now() + HOUR_MS
  const names = [
    ...(leaf.dnsNames ?? []).map((name) => der(0x82, Buffer.from(name))),
    ...(leaf.uris ?? []).map((uri) => der(0x86, Buffer.from(uri))),
  ]
  const usage = Buffer.from(
    leaf.usage === 'serverAuth' ? '06082b06010505070301' : '06082b06010505070302',
    'hex',
  )
  const extensions = [
    extension('551d11', der(0x30, ...names), true),
    extension('551d25', der(0x30, usage), false),
  ]
  const { pem, serial } = certify({
    issuer: ca.name,
    subject: '',
    key: ca.key,
    spki: leaf.spki,
    validity: [notBefore, notAfter],
    extensions,
  })
  return { pem, serial, notBefore, notAfter }
}

export function createServerKey(): { keyPem: string; spki: Buffer } {
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  return {
    keyPem: privateKey.export({ type: 'pkcs8', format: 'pem' }) as string,
    spki: publicKey.export({ type: 'spki', format: 'der' }),
  }
}

/** The SubjectPublicKeyInfo of a PKCS#10 request with an empty subject, as postern writes it. */
export function spkiOfCsr(csrPem: string): Buffer {
  const whole = Buffer.from(csrPem.replace(/-----[^-]+-----|\s/g, ''), 'base64')
  const info = children(children(whole)[0]!)
  return info[2]!
}

function certify(content: {
  issuer: string
  subject: string
  key: KeyObject
  spki: Buffer
  validity: [number, number]
  extensions: Buffer[]
}): { pem: string; serial: string } {
  const serial = Buffer.concat([Buffer.of(0x41), randomBytes(8)])
  const body = der(
    0x30,
    der(0xa0, Buffer.from('020102', 'hex')),
    der(0x02, serial),
    ECDSA_SHA256,
    distinguishedName(content.issuer),
    der(0x30, ...content.validity.map(time)),
    distinguishedName(content.subject),
    content.spki,
    der(0xa3, der(0x30, ...content.extensions)),
  )
  const signature = sign('sha256', body, content.key)
  const whole = der(0x30, body, ECDSA_SHA256, der(0x03, Buffer.of(0), signature))
  return { pem: toPem('CERTIFICATE', whole), serial: serial.toString('hex') }
}

function distinguishedName(name: string): Buffer {
  if (name === '') return der(0x30)
  const attribute = der(0x30, Buffer.from('0603550403', 'hex'), der(0x0c, Buffer.from(name)))
  return der(0x30, der(0x31, attribute))
}

function extension(oid: string, value: Buffer, critical: boolean): Buffer {
  const flag = critical ? [der(0x01, Buffer.of(0xff))] : []
  return der(0x30, der(0x06, Buffer.from(oid, 'hex')), ...flag, der(0x04, value))
}

/** GeneralizedTime is wrong before 2050 by the letter of RFC 5280, so UTCTime. */
function time(ms: number): Buffer {
  const text = new Date(ms).toISOString().replace(/[-:T]/g, '').slice(2, 14)
  return der(0x17, Buffer.from(`${text}Z`))
}

function der(tag: number, ...parts: Buffer[]): Buffer {
  const body = Buffer.concat(parts)
  const { length } = body
  const header =
    length < 0x80 ? [length] : length < 0x100 ? [0x81, length] : [0x82, length >> 8, length & 0xff]
  return Buffer.concat([Buffer.of(tag, ...header), body])
}

/** The elements inside a constructed one, each whole. */
function children(element: Buffer): Buffer[] {
  const found: Buffer[] = []
  for (let offset = headerLength(element); offset < element.length; ) {
    const rest = element.subarray(offset)
    const size = headerLength(rest) + contentLength(rest)
    found.push(rest.subarray(0, size))
    offset += size
  }
  return found
}

function headerLength(element: Buffer): number {
  return element[1]! < 0x80 ? 2 : 2 + (element[1]! & 0x7f)
}

function contentLength(element: Buffer): number {
  return element[1]! < 0x80 ? element[1]! : element.readUIntBE(2, element[1]! & 0x7f)
}

/** Basic constraints; after the functions that write it. */
const IS_CA = extension('551d13', der(0x30, der(0x01, Buffer.of(0xff))), true)
