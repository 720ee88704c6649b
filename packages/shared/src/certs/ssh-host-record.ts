import { type KeyObject, sign, verify } from 'node:crypto'
import * as v from 'valibot'
import { SshHostKeyRecord } from '../api/ssh.ts'
import { PosternError } from '../errors.ts'
import { decodeBase64, parseSshPublicKey, refusedKey, type SshKeyType } from './ssh-key.ts'
import { SshReader } from './ssh-wire.ts'

/** Which host keys a service has, as the edge says and signs it: a compact JWS (RFC 7515) by the host CA's key. What
 *  that key signs for ssh begins with a zero byte, this with a letter: neither can be taken for the other. */

export const SSH_HOST_RECORD_TYPE = 'postern-ssh-host-keys+jws'

const ALGORITHMS: Readonly<Record<SshKeyType, { alg: string; hash: string | null }>> = {
  'ssh-ed25519': { alg: 'EdDSA', hash: null },
  'ecdsa-sha2-nistp256': { alg: 'ES256', hash: 'sha256' },
  'ssh-rsa': { alg: 'RS512', hash: 'sha512' },
}

const MAX_RECORD_CHARACTERS = 65_536

/** @param type of the key */
export function signHostKeyRecord(
  record: SshHostKeyRecord,
  { type, key }: { type: SshKeyType; key: KeyObject },
): string {
  const { alg, hash } = ALGORITHMS[type]
  const input = `${encode({ alg, typ: SSH_HOST_RECORD_TYPE })}.${encode(record)}`
  const signature = sign(hash, Buffer.from(input), { key, dsaEncoding: 'ieee-p1363' })
  return `${input}.${signature.toString('base64url')}`
}

/** @param hostCa line of the host CA, from where it was learned first
 *  @throws CERTIFICATE_REFUSED another signer, or malformed */
export function verifyHostKeyRecord(jws: string, hostCa: string): SshHostKeyRecord {
  const { type, keyObject } = parseSshPublicKey(hostCa)
  const { alg, hash } = ALGORITHMS[type]
  const [header = '', payload = '', signature = '', ...rest] = jws.split('.')
  if (jws.length > MAX_RECORD_CHARACTERS || rest.length > 0) throw refused('is malformed')
  const isGood = verify(
    hash,
    Buffer.from(`${header}.${payload}`),
    { key: keyObject, dsaEncoding: 'ieee-p1363' },
    Buffer.from(signature, 'base64url'),
  )
  if (!isGood) throw refused('is not signed by the host CA of the edge')
  const said = decode(header) as { alg?: unknown; typ?: unknown } | undefined
  if (said?.alg !== alg || said.typ !== SSH_HOST_RECORD_TYPE) throw refused('is something else')
  const parsed = v.safeParse(SshHostKeyRecord, decode(payload))
  if (!parsed.success) throw refused('is malformed')
  return parsed.output
}

/** Kinds of host keys that are only compared: more than Postern certifies, for servers nobody can change. */
const HOST_KEY_TYPES: ReadonlySet<string> = new Set([
  'ssh-ed25519',
  'ecdsa-sha2-nistp256',
  'ecdsa-sha2-nistp384',
  'ecdsa-sha2-nistp521',
  'ssh-rsa',
])
const MAX_PARTS = 4

/** A line for known_hosts without comment or host: its type is known and its bytes are whole.
 *  @throws SSH_KEY_INVALID */
export function parseHostKeyLine(line: string): string {
  if (line.length > 4_096) throw refusedKey('it is too long')
  const [type = '', encoded = ''] = line.split(' ', 2)
  if (!HOST_KEY_TYPES.has(type)) throw refusedKey(`its type ${JSON.stringify(type.slice(0, 64))} is unknown`)
  const blob = decodeBase64(encoded)
  try {
    const reader = new SshReader(blob)
    if (reader.string().toString('latin1') !== type) throw new RangeError('another type inside')
    for (let parts = 1; !reader.isAtEnd && parts < MAX_PARTS; parts++) reader.string()
    reader.end()
  } catch (cause) {
    throw refusedKey('it is malformed', cause)
  }
  return `${type} ${encoded}`
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

function refused(reason: string): PosternError {
  return new PosternError('CERTIFICATE_REFUSED', `the record of host keys ${reason}`)
}
