import { generateKeyPairSync, randomBytes } from 'node:crypto'
import { link, readFile, unlink } from 'node:fs/promises'
import { join } from 'node:path'
import { PosternError } from '@postern/shared/errors'
import { calculateJwkThumbprint, type JWK } from 'jose'
import * as v from 'valibot'
import { explainDisk, makePrivateFolder, writePrivateFile } from '../private-file.ts'

/** The issuer's own secrets: made once, kept in `data_dir`, mode 0600. Losing the file signs nobody out of a
 *  session's flows, but ID tokens and logins under way become invalid. */
export interface LoginKeys {
  /** Sign the issuer's cookies; the first signs, all verify. */
  cookieKeys: string[]
  /** Signs ID tokens: ES256. */
  signingKey: JWK
  /** 32 bytes; DPoP nonces are derived from it, so they outlive a restart. */
  nonceSecret: Buffer
}

const FILE_NAME = 'login-keys.json'

const StoredKeys = v.strictObject({
  cookieKeys: v.pipe(v.array(v.pipe(v.string(), v.minLength(43))), v.minLength(1)),
  signingKey: v.looseObject({
    kty: v.literal('EC'),
    crv: v.literal('P-256'),
    d: v.string(),
    kid: v.string(),
  }),
  nonceSecret: v.pipe(v.string(), v.length(43)),
})

/** Reads the keys, making them first where there are none. Safe when several edges start at once on one folder.
 *  @throws STATE_INVALID the file is there and is not ours */
export async function loadLoginKeys(dataDir: string): Promise<LoginKeys> {
  const path = join(dataDir, FILE_NAME)
  const text = (await readIfThere(path)) ?? (await createKeys(dataDir, path))
  try {
    const { cookieKeys, signingKey, nonceSecret } = v.parse(StoredKeys, JSON.parse(text))
    return { cookieKeys, signingKey, nonceSecret: Buffer.from(nonceSecret, 'base64url') }
  } catch {
    // without the cause: a parser's message quotes what it read, and this file is all secrets
    throw new PosternError('STATE_INVALID', `${path} does not hold login keys`, {
      hint: 'restore the file, or move it away: the edge makes new keys, and logins under way start again',
    })
  }
}

async function createKeys(dataDir: string, path: string): Promise<string> {
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const jwk = privateKey.export({ format: 'jwk' }) as JWK
  const text = JSON.stringify({
    cookieKeys: [randomBytes(32).toString('base64url')],
    signingKey: { ...jwk, use: 'sig', alg: 'ES256', kid: await calculateJwkThumbprint(jwk) },
    nonceSecret: randomBytes(32).toString('base64url'),
  })
  await makePrivateFolder(dataDir)
  const temporary = `${path}.${randomBytes(6).toString('hex')}`
  await writePrivateFile(temporary, text)
  try {
    // link, not rename: of two that race, the second finds the first one's keys instead of replacing them
    await link(temporary, path)
    return text
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw explainDisk(path, error)
    return await readFile(path, 'utf8')
  } finally {
    await unlink(temporary)
  }
}

async function readIfThere(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, 'utf8')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw error
  }
}
