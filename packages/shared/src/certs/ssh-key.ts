import { createHash, createPublicKey, type JsonWebKey, type KeyObject } from 'node:crypto'
import { PosternError } from '../errors.ts'
import { SshReader, sshInteger, sshString } from './ssh-wire.ts'

/** Public keys of OpenSSH (RFC 4253 §6.6, RFC 5656 §3.1, RFC 8709 §4): read strictly, so that one key has one
 *  form, and only the kinds that Postern certifies and signs with. */

export const SSH_KEY_TYPES = ['ssh-ed25519', 'ecdsa-sha2-nistp256', 'ssh-rsa'] as const
export type SshKeyType = (typeof SSH_KEY_TYPES)[number]

export interface SshPublicKey {
  type: SshKeyType
  /** What the second word of its line encodes. */
  blob: Buffer
  keyObject: KeyObject
}

const MAX_LINE_CHARACTERS = 4_096
const MIN_RSA_BITS = 2_048
const MAX_RSA_BITS = 8_192

/** Reads one line, `ssh-ed25519 AAAA…`, with or without a comment.
 *  @throws SSH_KEY_INVALID */
export function parseSshPublicKey(line: string): SshPublicKey {
  if (line.length > MAX_LINE_CHARACTERS) throw refusedKey('it is too long')
  const [name, encoded] = line.trim().split(/[ \t]+/, 2)
  if (name === undefined || encoded === undefined || /[\r\n]/.test(line.trim())) {
    throw refusedKey('it is not one line of OpenSSH')
  }
  const key = parseSshPublicKeyBlob(decodeBase64(encoded))
  if (key.type !== name) throw refusedKey(`it says ${JSON.stringify(name)} and is ${key.type}`)
  return key
}

/** @throws SSH_KEY_INVALID */
export function parseSshPublicKeyBlob(blob: Buffer): SshPublicKey {
  try {
    const reader = new SshReader(blob)
    const type = readKeyType(reader.string().toString('latin1'))
    const keyObject = readKeyParts(type, reader)
    reader.end()
    return { type, blob, keyObject }
  } catch (cause) {
    if (cause instanceof PosternError) throw cause
    throw refusedKey('it is malformed', cause)
  }
}

export function readKeyType(name: string): SshKeyType {
  const type = SSH_KEY_TYPES.find((known) => known === name)
  if (type === undefined) throw refusedKey(`its type ${JSON.stringify(name.slice(0, 64))} is not accepted`)
  return type
}

/** The parts that follow the type, also those in a certificate. */
export function readKeyParts(type: SshKeyType, reader: SshReader): KeyObject {
  switch (type) {
    case 'ssh-ed25519': {
      const x = reader.string()
      if (x.length !== 32) throw refusedKey('its point has not 32 bytes')
      return fromJwk({ kty: 'OKP', crv: 'Ed25519', x: x.toString('base64url') })
    }
    case 'ecdsa-sha2-nistp256': {
      if (reader.string().toString('latin1') !== 'nistp256') throw refusedKey('its curve is not nistp256')
      const point = reader.string()
      if (point.length !== 65 || point[0] !== 4) throw refusedKey('its point is not an uncompressed one')
      const [x, y] = [point.subarray(1, 33), point.subarray(33)].map((half) => half.toString('base64url'))
      return fromJwk({ kty: 'EC', crv: 'P-256', x: x!, y: y! }) // OpenSSL checks that it is on the curve
    }
    case 'ssh-rsa': {
      const [e, n] = [reader.positiveInteger(), reader.positiveInteger()]
      const bits = n.length * 8 - Math.clz32(n[0]!) + 24
      if (bits < MIN_RSA_BITS) throw refusedKey(`it has ${bits} bits, ${MIN_RSA_BITS} are the least`)
      if (bits > MAX_RSA_BITS) throw refusedKey(`it has ${bits} bits, ${MAX_RSA_BITS} are the most`)
      if ((n.at(-1)! & 1) === 0) throw refusedKey('its modulus is even')
      if (e.toString('hex') !== '010001') throw refusedKey('its exponent is not 65537')
      return fromJwk({ kty: 'RSA', e: e.toString('base64url'), n: n.toString('base64url') })
    }
  }
}

/** The key as one line without a comment. */
export function formatSshPublicKey({ type, blob }: Pick<SshPublicKey, 'type' | 'blob'>): string {
  return `${type} ${blob.toString('base64')}`
}

/** @param key public or private, of a kind that Postern signs with
 *  @throws SSH_KEY_INVALID */
export function toSshPublicKey(key: KeyObject): SshPublicKey {
  const keyObject = key.type === 'private' ? createPublicKey(key) : key
  const { kty, crv, x = '', y = '', e = '', n = '' } = keyObject.export({ format: 'jwk' })
  const bytes = (part: string) => Buffer.from(part, 'base64url')
  const named = (type: SshKeyType, ...parts: Buffer[]) =>
    parseSshPublicKeyBlob(Buffer.concat([sshString(type), ...parts]))
  if (kty === 'OKP' && crv === 'Ed25519') return named('ssh-ed25519', sshString(bytes(x)))
  if (kty === 'RSA') return named('ssh-rsa', sshInteger(bytes(e)), sshInteger(bytes(n)))
  if (kty === 'EC' && crv === 'P-256') {
    const point = Buffer.concat([Buffer.of(4), bytes(x), bytes(y)])
    return named('ecdsa-sha2-nistp256', sshString('nistp256'), sshString(point))
  }
  throw refusedKey(`its kind ${kty} ${crv ?? ''} is not accepted`)
}

/** `SHA256:…` as OpenSSH prints it. */
export function sshFingerprint(blob: Buffer): string {
  return `SHA256:${createHash('sha256').update(blob).digest('base64').replace(/=+$/, '')}`
}

/** Only the one spelling that encoding again gives: Node ignores what it does not know.
 *  @throws SSH_KEY_INVALID */
export function decodeBase64(text: string): Buffer {
  const bytes = Buffer.from(text, 'base64')
  if (text === '' || bytes.toString('base64') !== text) throw refusedKey('it is not in base64')
  return bytes
}

function fromJwk(jwk: JsonWebKey): KeyObject {
  return createPublicKey({ key: jwk, format: 'jwk' })
}

export function refusedKey(reason: string, cause?: unknown): PosternError {
  return new PosternError('SSH_KEY_INVALID', `the ssh key is refused: ${reason}`, { cause })
}
