import { generateKeyPairSync, X509Certificate } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import path from 'node:path'
import { PosternError } from '@postern/shared/errors'
import { makePrivateFolder, writePrivateFile } from '../private-file.ts'
import { encodeKey, type KeyLock, readKey } from './key-file.ts'
import { type Issuer, signCa, toSigningKey } from './sign-ca.ts'
import { x509 } from './x509.ts'

/** A root above the edge's own CA, in a folder that is not the edge's: a stick in a safe. People trust the root; the edge has
 *  a CA below it, and gets another one from the root without anybody noticing. */
export interface OfflineRoot extends Issuer {
  certificatePem: string
}

const [KEY_FILE, CERTIFICATE_FILE] = ['root-ca.key', 'root-ca.pem']
const LIFETIME_MS = 20 * 365 * 86_400_000

/** @throws CONFIG_INVALID there is one · STATE_INVALID */
export async function createRoot(folder: string, now: number, lock: KeyLock): Promise<OfflineRoot> {
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const certificate = await signCa(privateKey, {
    ...{ name: 'Postern root CA', now, lifetimeMs: LIFETIME_MS },
    pathLength: 1,
  })
  await makePrivateFolder(folder)
  try {
    await writePrivateFile(path.join(folder, KEY_FILE), encodeKey(privateKey, lock))
    await writePrivateFile(path.join(folder, CERTIFICATE_FILE), `${certificate.toString('pem')}\n`)
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code !== 'EEXIST') throw cause
    throw new PosternError('CONFIG_INVALID', `${folder} has a root already, which is not overwritten`, {
      hint: 'name an empty folder with --offline-root',
      cause,
    })
  }
  return openRoot(folder, lock)
}

/** @throws CA_KEY_LOCKED · CONFIG_INVALID */
export async function openRoot(folder: string, lock: KeyLock): Promise<OfflineRoot> {
  try {
    const privateKey = await readKey(path.join(folder, KEY_FILE), lock)
    const certificatePem = await readFile(path.join(folder, CERTIFICATE_FILE), 'utf8')
    if (!new X509Certificate(certificatePem).checkPrivateKey(privateKey)) {
      throw new Error('the key belongs to another certificate')
    }
    const certificate = new x509.X509Certificate(certificatePem)
    return { certificate, certificatePem, signingKey: toSigningKey(privateKey) }
  } catch (cause) {
    if (cause instanceof PosternError) throw cause
    const reason = cause instanceof Error ? cause.message : String(cause)
    throw new PosternError('CONFIG_INVALID', `the root in ${folder} cannot be read: ${reason}`, {
      hint: 'name the folder that postern-edge ca init --offline-root has written',
      cause,
    })
  }
}
