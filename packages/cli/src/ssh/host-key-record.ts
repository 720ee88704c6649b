import { verify } from 'node:crypto'
import { SshHostKeyRecord } from '@postern/shared/api/ssh'
import { parseSshPublicKey, type SshKeyType } from '@postern/shared/certs/ssh-key'
import { PosternError } from '@postern/shared/errors'
import * as v from 'valibot'

/** The edge's signed record of a service's host keys: a compact JWS (RFC 7515) by the host CA. */

/** One algorithm for each kind of key: the header only has to agree. */
const ALGORITHMS: Readonly<Record<SshKeyType, { name: string; hash: string | null }>> = {
  'ssh-ed25519': { name: 'EdDSA', hash: null },
  'ecdsa-sha2-nistp256': { name: 'ES256', hash: 'sha256' },
  'ssh-rsa': { name: 'RS512', hash: 'sha512' },
}
const MAX_CHARACTERS = 65_536

/** @param hostCa its line of OpenSSH
 *  @throws PROTOCOL_INVALID unless the host CA has signed it */
export function verifyHostKeyRecord(record: string, hostCa: string): SshHostKeyRecord {
  const parts = record.length > MAX_CHARACTERS ? [] : record.split('.')
  const [header, claims, signature] = parts
  if (parts.length !== 3 || !header || !claims || !signature) throw refused('is not a compact JWS')
  const { type, keyObject } = parseSshPublicKey(hostCa)
  const { name, hash } = ALGORITHMS[type]
  if ((decode(header) as { alg?: unknown } | null)?.alg !== name) throw refused('has another algorithm')
  const key = { key: keyObject, dsaEncoding: 'ieee-p1363' } as const
  if (!verify(hash, Buffer.from(`${header}.${claims}`), key, Buffer.from(signature, 'base64url'))) {
    throw refused('is not signed by the host CA')
  }
  const result = v.safeParse(SshHostKeyRecord, decode(claims))
  if (!result.success) throw refused('has other members')
  return result.output
}

function decode(part: string): unknown {
  try {
    return JSON.parse(Buffer.from(part, 'base64url').toString('utf8'))
  } catch (cause) {
    throw refused('is not JSON', cause)
  }
}

function refused(reason: string, cause?: unknown): PosternError {
  return new PosternError('PROTOCOL_INVALID', `the edge's record of host keys ${reason}`, { cause })
}
