import { createHash, generateKeyPairSync, type KeyObject, randomBytes } from 'node:crypto'
import { link, readFile, rm, stat } from 'node:fs/promises'
import path from 'node:path'
import { formatSshPublicKey, type SshPublicKey, toSshPublicKey } from '@postern/shared/certs/ssh-key'
import { PosternError } from '@postern/shared/errors'
import { explainDisk, writePrivateFile } from '../private-file.ts'
import { generationsOf, readGenerations } from './generations.ts'
import { encodeKey, type KeyLock, readKey } from './key-file.ts'

/** Who signs for ssh: one key for users, one for hosts, so that neither kind of certificate is good for the other.
 *  They lie beside the authorities of TLS, `DATA_DIR/ca/ssh-user-ca.key` and `.pub`, and are made when they are
 *  missing: an edge that is older than they are gets them at its next start. Another one takes over as those of TLS do, see
 *  generations.ts. */
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

/** Their kinds among the generations of all CAs. */
export type SshGenerationKind = `ssh-${SshAuthorityKind}`
export const SSH_GENERATION_KINDS = ['ssh-user', 'ssh-host'] as const satisfies readonly SshGenerationKind[]

export function sshGenerationKind(kind: SshAuthorityKind): SshGenerationKind {
  return `ssh-${kind}`
}

export function isSshGenerationKind(kind: string): kind is SshGenerationKind {
  return (SSH_GENERATION_KINDS as readonly string[]).includes(kind)
}

/** Those that sign now. Makes the first of a kind when there is none yet.
 *  @param keyType of a new one; one that exists keeps its own
 *  @param lock of the keys, where they are encrypted
 *  @throws CONFIG_INVALID a key is open to others, malformed, or does not fit its public file · CA_KEY_LOCKED */
export async function openSshAuthorities(
  dataDir: string,
  keyType: SshCaKeyType,
  lock?: KeyLock,
  now = Date.now(),
): Promise<SshAuthorities> {
  const kinds = await readGenerations(dataDir)
  const open = async (kind: SshGenerationKind) => {
    if (!kinds.has(kind)) await makeFirst(path.join(dataDir, FOLDER), kind, keyType, lock)
    const { name } = generationsOf(kinds, kind).signing(now)
    return loadSshAuthority(dataDir, kind, { name, lock })
  }
  const [user, host] = await Promise.all(SSH_GENERATION_KINDS.map(open))
  return { user: user!, host: host! }
}

/** The public file follows from the key, so an edge that died in between goes on with that key. */
async function makeFirst(
  folder: string,
  kind: SshGenerationKind,
  keyType: SshCaKeyType,
  lock: KeyLock | undefined,
): Promise<void> {
  const name = `${kind}-ca`
  if (!(await exists(keyFile(folder, name)))) {
    if (await exists(publicFile(folder, name))) {
      throw cannotRead(kind, folder, new Error('the private key is missing'))
    }
    await writeWhole(keyFile(folder, name), encodeKey(generateKey(keyType), lock))
  }
}

/** Makes one more CA of a kind, beside those that there are. Nobody uses it before a generation names it.
 *  @returns the name of its files */
export async function addSshAuthority(
  dataDir: string,
  kind: SshGenerationKind,
  { keyType, lock }: { keyType: SshCaKeyType; lock: KeyLock | undefined },
): Promise<string> {
  const folder = path.join(dataDir, FOLDER)
  const key = generateKey(keyType)
  const id = createHash('sha256').update(toSshPublicKey(key).blob).digest('hex').slice(0, 8)
  const name = `${kind}-ca-${id}`
  await writeWhole(keyFile(folder, name), encodeKey(key, lock))
  await loadSshAuthority(dataDir, kind, { name, lock })
  return name
}

/** @param name of its files
 *  @throws as `openSshAuthorities` */
export async function loadSshAuthority(
  dataDir: string,
  kind: SshGenerationKind,
  { name, lock }: { name: string; lock: KeyLock | undefined },
): Promise<SshAuthority> {
  const folder = path.join(dataDir, FOLDER)
  try {
    const signingKey = await readKey(keyFile(folder, name), lock)
    const publicKey = toSshPublicKey(signingKey)
    const line = formatSshPublicKey(publicKey)
    await writeWhole(publicFile(folder, name), `${line} postern-${name}\n`)
    const [type, blob] = (await readFile(publicFile(folder, name), 'utf8')).split(/\s+/)
    if (`${type} ${blob}` !== line) throw new Error('the key belongs to another public key')
    return { kind: kind === 'ssh-user' ? 'user' : 'host', publicKey, line, signingKey }
  } catch (cause) {
    throw cannotRead(kind, folder, cause)
  }
}

const FOLDER = 'ca'

function keyFile(folder: string, name: string): string {
  return path.join(folder, `${name}.key`)
}

function publicFile(folder: string, name: string): string {
  return path.join(folder, `${name}.pub`)
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

function cannotRead(kind: SshGenerationKind, folder: string, cause: unknown): PosternError {
  if (cause instanceof PosternError) return cause
  const reason = cause instanceof Error ? cause.message : String(cause)
  return new PosternError(
    'CONFIG_INVALID',
    `the ${kind.replace('-', ' ')} CA in ${folder} cannot be read: ${reason}`,
    {
      hint: 'bring the folder back from a backup: servers trust this key and no other',
      cause,
    },
  )
}

async function exists(file: string): Promise<boolean> {
  return stat(file).then(
    () => true,
    () => false,
  )
}
