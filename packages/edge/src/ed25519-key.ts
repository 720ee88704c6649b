import { generateKeyPairSync, type KeyObject } from 'node:crypto'
import { PosternError } from '@postern/shared/errors'
import { encodeKey, type KeyLock, readKey } from './ca/key-file.ts'
import { writeWhole } from './ca/ssh-authorities.ts'

interface AboutKey {
  /** Begins the message. */
  what: string
  /** How to get it back. */
  hint: string
}

/** A private key with which the edge signs statements. Made when it is missing: an edge that is older than it gets it at
 *  its next start.
 *  @param lock of keys that are encrypted
 *  @throws CONFIG_INVALID it is open to others, of another kind, or cannot be made · CA_KEY_LOCKED */
export async function openEd25519Key(file: string, about: AboutKey, lock?: KeyLock): Promise<KeyObject> {
  const { privateKey } = generateKeyPairSync('ed25519')
  await writeWhole(file, encodeKey(privateKey, lock)).catch((cause) => {
    throw explain(file, about, cause)
  })
  return loadEd25519Key(file, about, lock)
}

/** The same for one that must be there. */
export async function loadEd25519Key(file: string, about: AboutKey, lock?: KeyLock): Promise<KeyObject> {
  try {
    const key = await readKey(file, lock)
    if (key.asymmetricKeyType !== 'ed25519') throw new Error(`it is a key of ${key.asymmetricKeyType}`)
    return key
  } catch (cause) {
    throw explain(file, about, cause)
  }
}

function explain(file: string, { what, hint }: AboutKey, cause: unknown): PosternError {
  if (cause instanceof PosternError) return cause // what the disk did, or the passphrase
  const reason = cause instanceof Error ? cause.message : String(cause)
  return new PosternError('CONFIG_INVALID', `${what} ${file} cannot be used: ${reason}`, { hint, cause })
}
