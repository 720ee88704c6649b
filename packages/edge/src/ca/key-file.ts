import { createCipheriv, createPrivateKey, type KeyObject, randomBytes, scryptSync } from 'node:crypto'
import { constants } from 'node:fs'
import { open } from 'node:fs/promises'
import { der, derInteger, toPem } from '@postern/shared/certs/der'
import { PosternError } from '@postern/shared/errors'
import { replacePrivateFile } from '../private-file.ts'

/** The private keys of the CAs as they lie on the disk: PKCS#8, encrypted where a passphrase is named. The format is
 *  PBES2 with scrypt and AES-256 (RFC 8018, RFC 7914), which OpenSSL reads too: `openssl pkey -in FILE`. */
export interface KeyLock {
  passphrase: string
  /** The file that it was read from, for messages. */
  file: string
}

/** 16 MiB and five turns: what OWASP asks for, and within what OpenSSL spends on a key that it does not know. */
const SCRYPT = { cost: 2 ** 14, blockSize: 8, parallelization: 5 }
const KEY_BYTES = 32
const OID = {
  pbes2: Buffer.from('06092a864886f70d01050d', 'hex'),
  scrypt: Buffer.from('06092b06010401da47040b', 'hex'),
  aes256Cbc: Buffer.from('060960864801650304012a', 'hex'),
}

/** PEM of a key, encrypted when there is a lock. */
export function encodeKey(key: KeyObject, lock: KeyLock | undefined): string {
  if (!lock) return key.export({ type: 'pkcs8', format: 'pem' }).toString()
  const [salt, iv] = [randomBytes(16), randomBytes(16)]
  const cipher = createCipheriv('aes-256-cbc', scryptSync(lock.passphrase, salt, KEY_BYTES, SCRYPT), iv)
  const plain = key.export({ type: 'pkcs8', format: 'der' })
  const encrypted = Buffer.concat([cipher.update(plain), cipher.final()])
  const { cost, blockSize, parallelization } = SCRYPT
  const numbers = [cost, blockSize, parallelization, KEY_BYTES].map(derInteger)
  const derivation = der(0x30, OID.scrypt, der(0x30, der(0x04, salt), ...numbers))
  const encryption = der(0x30, OID.aes256Cbc, der(0x04, iv))
  const algorithm = der(0x30, OID.pbes2, der(0x30, derivation, encryption))
  return toPem(ENCRYPTED, der(0x30, algorithm, der(0x04, encrypted)))
}

const ENCRYPTED = 'ENCRYPTED PRIVATE KEY'

/** Reads a key that only this user can read. A key without encryption where one is asked for is refused: somebody forgot
 *  to encrypt it, or has put another one there.
 *  @throws CA_KEY_LOCKED no passphrase, or a wrong one · CONFIG_INVALID open to others, or not encrypted ·
 *    Error malformed */
export async function readKey(file: string, lock: KeyLock | undefined): Promise<KeyObject> {
  const pem = await readKeyPem(file)
  if (isEncrypted(pem)) return unlockKey(file, pem, lock)
  if (lock) {
    throw new PosternError(
      'CONFIG_INVALID',
      `the key ${file} is not encrypted, though ${lock.file} is named`,
      {
        hint: 'encrypt the keys once: postern-edge ca encrypt-keys --config FILE',
      },
    )
  }
  return createPrivateKey(pem)
}

/** Writes all keys anew: encrypted under `to`, or plain without it. Each file is replaced as a whole, and one that is as
 *  it should be stays; after a crash the same call does the rest.
 *  @param from what opens those that are encrypted otherwise · @returns how many were written
 *  @throws as `readKey` · STATE_INVALID */
export async function relockKeys(
  files: readonly string[],
  { from, to }: { from: KeyLock | undefined; to: KeyLock | undefined },
): Promise<number> {
  // opened all before one is written: a wrong passphrase changes nothing
  const keys = await Promise.all(files.map((file) => openForRelock(file, { from, to })))
  let written = 0
  for (const [index, key] of keys.entries()) {
    if (key === 'as it should be') continue
    await replacePrivateFile(files[index]!, encodeKey(key, to))
    written++
  }
  return written
}

async function openForRelock(
  file: string,
  { from, to }: { from: KeyLock | undefined; to: KeyLock | undefined },
): Promise<KeyObject | 'as it should be'> {
  // no link: root may be asked to do this in the folder of somebody else
  const pem = await readKeyPem(file, constants.O_NOFOLLOW)
  if (!isEncrypted(pem)) return to ? createPrivateKey(pem) : 'as it should be'
  if (to && opens(pem, to)) return 'as it should be'
  return unlockKey(file, pem, from ?? to)
}

function unlockKey(file: string, pem: string, lock: KeyLock | undefined): KeyObject {
  if (!lock) {
    throw new PosternError('CA_KEY_LOCKED', `the key ${file} is encrypted, and no passphrase is named`, {
      hint: 'name the file with it in the configuration: ca: { key_passphrase_file: … }',
    })
  }
  try {
    return createPrivateKey({ key: pem, passphrase: lock.passphrase })
  } catch (cause) {
    throw new PosternError('CA_KEY_LOCKED', `the passphrase in ${lock.file} does not open the key ${file}`, {
      cause,
    })
  }
}

function opens(pem: string, { passphrase }: KeyLock): boolean {
  try {
    createPrivateKey({ key: pem, passphrase })
    return true
  } catch {
    return false
  }
}

function isEncrypted(pem: string): boolean {
  return pem.includes(`-----BEGIN ${ENCRYPTED}-----`)
}

async function readKeyPem(file: string, flags = 0): Promise<string> {
  await using handle = await open(file, constants.O_RDONLY | flags).catch((cause: NodeJS.ErrnoException) => {
    if (cause.code !== 'ELOOP') throw cause
    throw new PosternError('CONFIG_INVALID', `the key ${file} is a link`, {
      hint: 'put the key itself there',
      cause,
    })
  })
  const { mode } = await handle.stat()
  if (process.platform !== 'win32' && (mode & 0o077) !== 0) {
    throw new PosternError('CONFIG_INVALID', `the key ${file} can be read by other users`, {
      hint: `run: chmod 600 ${file}`,
    })
  }
  return await handle.readFile('utf8')
}
