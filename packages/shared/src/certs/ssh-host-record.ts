import * as v from 'valibot'
import { SshHostKeyRecord } from '../api/ssh.ts'
import { PosternError } from '../errors.ts'
import { type SshJwsSigner, signSshJws, verifySshJws } from './ssh-jws.ts'
import { decodeBase64, refusedKey } from './ssh-key.ts'
import { SshReader } from './ssh-wire.ts'

/** Which host keys a service has, as the edge says and signs it with the host CA's key. */

export const SSH_HOST_RECORD_TYPE = 'postern-ssh-host-keys+jws'
const WHAT = 'the record of host keys'

export function signHostKeyRecord(record: SshHostKeyRecord, signer: SshJwsSigner): string {
  return signSshJws(SSH_HOST_RECORD_TYPE, record, signer)
}

/** @param hostCa line of the host CA, from where it was learned first
 *  @throws CERTIFICATE_REFUSED another signer, or malformed */
export function verifyHostKeyRecord(jws: string, hostCa: string): SshHostKeyRecord {
  const said = verifySshJws(jws, SSH_HOST_RECORD_TYPE, { by: hostCa, what: WHAT })
  const parsed = v.safeParse(SshHostKeyRecord, said)
  if (parsed.success) return parsed.output
  throw new PosternError('CERTIFICATE_REFUSED', `${WHAT} is malformed`)
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
