import { generateKeyPairSync, type KeyObject, randomBytes } from 'node:crypto'
import { link, readFile, rm, stat } from 'node:fs/promises'
import path from 'node:path'
import { formatSshPublicKey, type SshPublicKey, toSshPublicKey } from '@postern/shared/certs/ssh-key'
import { PosternError } from '@postern/shared/errors'
import { explainDisk, writePrivateFile } from '../private-file.ts'
import { encodeKey, type KeyLock, readKey } from './key-file.ts'

/** Who signs for ssh: one key for users, one for hosts, so that neither kind of certificate is good for the other.
 *  They lie beside the authorities of TLS, `DATA_DIR/ca/ssh-user-ca.key` and `.pub`, and are made when they are
 *  missing: an edge that is older than they are gets them at its next start. */
export interface SshAuthority {
  kind: SshAuthorityKind
  publicKey: SshPublicKey
  /** One line of OpenSSH with no comment: what stands in sshd's `TrustedUserCAKeys`. */
  line: string
  signingKey: KeyObject
}

export const SSH_AUTHORITY_KINDS = ['user', 'host'] as const
export type SshAuthorityKind = (typeof SSH_AUTHORITY_KINDS)[number]
export type SshAuthorities = Readonly<Record<SshAuthorityKind, SshAuthority>>

export const SSH_CA_KEY_TYPES = ['ed25519', 'ecdsa', 'rsa'] as const
export type SshCaKeyType = (typeof SSH_CA_KEY_TYPES)[number]

/** Loads both, and makes the one that is missing.
 *  @param keyType of a new one; one that exists keeps its own
 *  @param lock of the keys, where they are encrypted
 *  @throws CONFIG_INVALID a key is open to others, malformed, or does not fit its public file · CA_KEY_LOCKED */
export async function openSshAuthorities(
  dataDir: string,
  keyType: SshCaKeyType,
  lock?: KeyLock,
): Promise<SshAuthorities> {
  const folder = path.join(dataDir, 'ca')
  const [user, host] = await Promise.all(
    SSH_AUTHORITY_KINDS.map((kind) => openOne(folder, kind, keyType, lock)),
  )
  return { user: user!, host: host! }
}

async function openOne(
  folder: string,
  kind: SshAuthorityKind,
  keyType: SshCaKeyType,
  lock: KeyLock | undefined,
): Promise<SshAuthority> {
  const keyFile = path.join(folder, `ssh-${kind}-ca.key`)
  const publicFile = path.join(folder, `ssh-${kind}-ca.pub`)
  if (!(await exists(keyFile))) {
    if (await exists(publicFile)) throw cannotRead(kind, folder, new Error('the private key is missing'))
    await writeWhole(keyFile, encodeKey(generateKey(keyType), lock))
  }
  try {
    const signingKey = await readKey(keyFile, lock)
    const publicKey = toSshPublicKey(signingKey)
    const line = formatSshPublicKey(publicKey)
    await writeWhole(publicFile, `${line} postern-ssh-${kind}-ca\n`)
    const [type, blob] = (await readFile(publicFile, 'utf8')).split(/\s+/)
    if (`${type} ${blob}` !== line) throw new Error('the key belongs to another public key')
    return { kind, publicKey, line, signingKey }
  } catch (cause) {
    throw cannotRead(kind, folder, cause)
  }
}

function generateKey(keyType: SshCaKeyType): KeyObject {
  const { privateKey } =
    keyType === 'ed25519'
      ? generateKeyPairSync('ed25519')
      : keyType === 'ecdsa'
        ? generateKeyPairSync('ec', { namedCurve: 'P-256' })
        : generateKeyPairSync('rsa', { modulusLength: 3_072 })
  return privateKey
}

/** Appears with its content or not at all, and never takes the place of another: of two processes that start at once
 *  the first one's stays. */
export async function writeWhole(file: string, text: string): Promise<void> {
  if (await exists(file)) return
  const draft = `${file}.new-${randomBytes(6).toString('hex')}`
  try {
    await writePrivateFile(draft, text)
    await link(draft, file).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== 'EEXIST') throw explainDisk(file, error)
    })
  } finally {
    await rm(draft, { force: true })
  }
}

function cannotRead(kind: SshAuthorityKind, folder: string, cause: unknown): PosternError {
  if (cause instanceof PosternError) return cause
  const reason = cause instanceof Error ? cause.message : String(cause)
  return new PosternError('CONFIG_INVALID', `the ssh ${kind} CA in ${folder} cannot be read: ${reason}`, {
    hint: 'bring the folder back from a backup: servers trust this key and no other',
    cause,
  })
}

async function exists(file: string): Promise<boolean> {
  return stat(file).then(
    () => true,
    () => false,
  )
}
