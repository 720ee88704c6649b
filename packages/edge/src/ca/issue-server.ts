import type { KeyObject } from 'node:crypto'
import type { Authority } from './authorities.ts'
import { requireKind } from './issue-client.ts'
import { type IssuedLeaf, signLeaf } from './leaf.ts'
import type { ServerName } from './server-name.ts'

export interface ServerCertificateRequest {
  names: readonly ServerName[]
  publicKey: KeyObject
  /** Epoch milliseconds. */
  notAfter: number
  backdateMs: number
}

/** As long as browsers accept. */
export const MAX_SERVER_TTL_MS = 398 * 86_400_000
/** No name: programs that look at it instead of the names find none. */
const COMMON_NAME = 'a private service'

/** A certificate of a private service behind the edge: PostgreSQL, stunnel, HTTPS. The edge believes it nowhere. */
export async function issueServerCertificate(
  authority: Authority,
  { names, publicKey, notAfter, backdateMs }: ServerCertificateRequest,
  now: number,
): Promise<IssuedLeaf> {
  requireKind(authority, 'server')
  return signLeaf(authority, {
    commonName: COMMON_NAME,
    usage: 'serverAuth',
    names,
    publicKey,
    notBefore: now - backdateMs,
    notAfter,
  })
}
