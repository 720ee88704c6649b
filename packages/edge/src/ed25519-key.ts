import { createPrivateKey, generateKeyPairSync, type KeyObject } from 'node:crypto'
import { readFile, stat } from 'node:fs/promises'
import { PosternError } from '@postern/shared/errors'
import { writeWhole } from './ca/ssh-authorities.ts'

/** A private key with which the edge signs statements. Made when it is missing: an edge that is older than it gets it at
 *  its next start.
 *  @param about `what` begins the message, `hint` says how to get it back
 *  @throws CONFIG_INVALID it is open to others, of another kind, or cannot be made */
export async function openEd25519Key(
  file: string,
  { what, hint }: { what: string; hint: string },
): Promise<KeyObject> {
  try {
    const { privateKey } = generateKeyPairSync('ed25519')
    await writeWhole(file, privateKey.export({ type: 'pkcs8', format: 'pem' }).toString())
    const { mode } = await stat(file)
    if (process.platform !== 'win32' && (mode & 0o077) !== 0) {
      throw new Error(`other users can read it, run: chmod 600 ${file}`)
    }
    const key = createPrivateKey(await readFile(file, 'utf8'))
    if (key.asymmetricKeyType !== 'ed25519') throw new Error(`it is a key of ${key.asymmetricKeyType}`)
    return key
  } catch (cause) {
    if (cause instanceof PosternError) throw cause // what the disk did
    const reason = cause instanceof Error ? cause.message : String(cause)
    throw new PosternError('CONFIG_INVALID', `${what} ${file} cannot be used: ${reason}`, { hint, cause })
  }
}
