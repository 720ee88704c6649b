import { generateKeyPairSync, type KeyObject, randomBytes } from 'node:crypto'
import { SshReader, sshInteger, sshString, sshUint32 } from '@postern/shared/certs/ssh-wire'

/** Key pairs for ssh, and OpenSSH's own file for them (PROTOCOL.key, without encryption: the file is readable by its
 *  owner only and its certificate lives for minutes). Written here, because Node writes Ed25519 keys as PKCS#8 only,
 *  which ssh does not read, and because `ssh-keygen` is not on every machine and would need a folder to write into
 *  before the edge has agreed. */

export type SshKeyType = 'ed25519' | 'ecdsa'

export interface SshKey {
  type: SshKeyType
  /** What `publicLine` has in base64. */
  publicBlob: Buffer
  /** One line of OpenSSH without a comment. */
  publicLine: string
  /** The private fields as the agent's protocol and the key file want them, after the public ones. */
  privateFields: Buffer
  /** The public fields that come before them, without the algorithm's name. */
  publicFields: Buffer
}

const MAGIC = 'openssh-key-v1\0'
const BLOCK_BYTES = 8
const LINE_CHARACTERS = 70

export function generateSshKey(type: SshKeyType): SshKey {
  return type === 'ecdsa' ? generateEcdsa() : generateEd25519()
}

function generateEd25519(): SshKey {
  const { x, d } = exportJwk(generateKeyPairSync('ed25519').privateKey)
  const publicFields = sshString(x!)
  return makeKey('ed25519', 'ssh-ed25519', publicFields, sshString(Buffer.concat([d!, x!])))
}

function generateEcdsa(): SshKey {
  const { x, y, d } = exportJwk(generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey)
  const point = Buffer.concat([Buffer.of(4), x!, y!])
  const publicFields = Buffer.concat([sshString('nistp256'), sshString(point)])
  return makeKey('ecdsa', 'ecdsa-sha2-nistp256', publicFields, sshInteger(d!))
}

function makeKey(type: SshKeyType, algorithm: string, publicFields: Buffer, privateFields: Buffer): SshKey {
  const publicBlob = Buffer.concat([sshString(algorithm), publicFields])
  const publicLine = `${algorithm} ${publicBlob.toString('base64')}`
  return { type, publicBlob, publicLine, publicFields, privateFields }
}

function exportJwk(key: KeyObject): Record<'x' | 'y' | 'd', Buffer | undefined> {
  const { x, y, d } = key.export({ format: 'jwk' })
  const decode = (text: string | undefined) => text && Buffer.from(text, 'base64url')
  return { x: decode(x) || undefined, y: decode(y) || undefined, d: decode(d) || undefined }
}

/** The text of a private key file.
 *  @see https://github.com/openssh/openssh-portable/blob/master/PROTOCOL.key */
export function formatPrivateKey(key: SshKey, comment: string): string {
  const check = randomBytes(4)
  const secret = Buffer.concat([check, check, key.publicBlob, key.privateFields, sshString(comment)])
  const padding = Buffer.from(
    Array.from({ length: (BLOCK_BYTES - (secret.length % BLOCK_BYTES)) % BLOCK_BYTES }, (_, at) => at + 1),
  )
  const whole = Buffer.concat([
    Buffer.from(MAGIC),
    sshString('none'),
    sshString('none'),
    sshString(''),
    sshUint32(1),
    sshString(key.publicBlob),
    sshString(Buffer.concat([secret, padding])),
  ])
  const lines = whole.toString('base64').match(new RegExp(`.{1,${LINE_CHARACTERS}}`, 'g'))!
  return ['-----BEGIN OPENSSH PRIVATE KEY-----', ...lines, '-----END OPENSSH PRIVATE KEY-----', ''].join('\n')
}

/** The public key in a private key file.
 *  @returns undefined for anything else, also for a key file in another format */
export function readPublicBlob(text: string): Buffer | undefined {
  const body =
    /^-----BEGIN OPENSSH PRIVATE KEY-----\s([A-Za-z0-9+/=\s]+)-----END OPENSSH PRIVATE KEY-----\s*$/.exec(
      text,
    )?.[1]
  if (body === undefined) return undefined
  try {
    const reader = new SshReader(Buffer.from(body, 'base64'))
    if (reader.take(MAGIC.length).toString('latin1') !== MAGIC) return undefined
    for (let skipped = 0; skipped < 3; skipped++) reader.string()
    return reader.uint32() === 1 ? reader.string() : undefined
  } catch {
    return undefined
  }
}
