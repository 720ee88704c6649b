import { type KeyObject, sign, verify } from 'node:crypto'
import { PosternError } from '../errors.ts'
import { parseSshPublicKey, type SshKeyType } from './ssh-key.ts'

/** What the edge says under the key of an ssh CA, besides certificates: a compact JWS (RFC 7515). What that key signs for
 *  ssh begins with a zero byte, this with a letter, and each kind of statement has a `typ` of its own: nothing can be taken
 *  for something else. */

const ALGORITHMS: Readonly<Record<SshKeyType, { alg: string; hash: string | null }>> = {
  'ssh-ed25519': { alg: 'EdDSA', hash: null },
  'ecdsa-sha2-nistp256': { alg: 'ES256', hash: 'sha256' },
  'ssh-rsa': { alg: 'RS512', hash: 'sha512' },
}

const MAX_JWS_CHARACTERS = 65_536

/** Who signs: a key, and its type as OpenSSH names it. */
export interface SshJwsSigner {
  type: SshKeyType
  key: KeyObject
}

export function signSshJws(typ: string, payload: object, { type, key }: SshJwsSigner): string {
  const { alg, hash } = ALGORITHMS[type]
  const input = `${encode({ alg, typ })}.${encode(payload)}`
  const signature = sign(hash, Buffer.from(input), { key, dsaEncoding: 'ieee-p1363' })
  return `${input}.${signature.toString('base64url')}`
}

/** @param typ of the statement
 *  @param options.by line of the CA that has to have signed it
 *  @param options.what for the message
 *  @returns what it says, not looked at yet
 *  @throws CERTIFICATE_REFUSED another signer, another kind of statement, or malformed */
export function verifySshJws(jws: string, typ: string, { by, what }: { by: string; what: string }): unknown {
  const refused = (reason: string) => new PosternError('CERTIFICATE_REFUSED', `${what} ${reason}`)
  const { type, keyObject } = parseSshPublicKey(by)
  const { alg, hash } = ALGORITHMS[type]
  const [header = '', payload = '', signature = '', ...rest] = jws.split('.')
  if (jws.length > MAX_JWS_CHARACTERS || rest.length > 0) throw refused('is malformed')
  if (![header, payload, signature].every(isCanonical)) throw refused('is malformed')
  const isGood = verify(
    hash,
    Buffer.from(`${header}.${payload}`),
    { key: keyObject, dsaEncoding: 'ieee-p1363' },
    Buffer.from(signature, 'base64url'),
  )
  if (!isGood) throw refused('is not signed by the CA that it should be signed by')
  const said = decode(header) as { alg?: unknown; typ?: unknown } | undefined
  if (said?.alg !== alg || said.typ !== typ) throw refused('is something else')
  return decode(payload)
}

/** Only the one spelling that encoding again gives: Node ignores what it does not know. */
function isCanonical(part: string): boolean {
  return Buffer.from(part, 'base64url').toString('base64url') === part
}

function encode(value: unknown): string {
  return Buffer.from(JSON.stringify(value)).toString('base64url')
}

function decode(text: string): unknown {
  try {
    return JSON.parse(Buffer.from(text, 'base64url').toString('utf8'))
  } catch {
    return undefined
  }
}
