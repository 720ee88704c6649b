import { createCipheriv, createDecipheriv, createHash, hkdfSync, randomBytes } from 'node:crypto'

/** How the store keeps what belongs to a secret without keeping the secret: rows are found by the secret's hash,
 *  and what they hold is encrypted under a key derived from the secret. Whoever reads the database learns
 *  neither. Only for secrets of high entropy (tokens, cookies); a short user code merely delays a reader. */

const CIPHER = 'aes-256-gcm'
const NONCE_BYTES = 12
const TAG_BYTES = 16

/** SHA-256 in lower-case hex, the form in which a secret is looked up. */
export function hashSecret(secret: string): string {
  return createHash('sha256').update(secret, 'utf8').digest('hex')
}

/** Encrypts `text` so that only a holder of `secret` reads it.
 *  @param context what the text is; unsealing needs the same, so that a row cannot stand in for another */
export function seal(text: string, secret: string, context: string): string {
  const nonce = randomBytes(NONCE_BYTES)
  const cipher = createCipheriv(CIPHER, keyOf(secret), nonce).setAAD(Buffer.from(context, 'utf8'))
  const sealed = Buffer.concat([cipher.update(text, 'utf8'), cipher.final()])
  return Buffer.concat([nonce, cipher.getAuthTag(), sealed]).toString('base64url')
}

/** @throws Error when the secret or the context is another one, or the text was changed */
export function unseal(sealed: string, secret: string, context: string): string {
  const bytes = Buffer.from(sealed, 'base64url')
  const body = NONCE_BYTES + TAG_BYTES
  const decipher = createDecipheriv(CIPHER, keyOf(secret), bytes.subarray(0, NONCE_BYTES), {
    authTagLength: TAG_BYTES,
  })
  decipher.setAAD(Buffer.from(context, 'utf8')).setAuthTag(bytes.subarray(NONCE_BYTES, body))
  return Buffer.concat([decipher.update(bytes.subarray(body)), decipher.final()]).toString('utf8')
}

/** HKDF (RFC 5869), so that the key has nothing in common with the hash that is stored beside it. */
function keyOf(secret: string): Buffer {
  return Buffer.from(hkdfSync('sha256', secret, '', 'postern store seal', 32))
}
