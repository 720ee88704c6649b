import type { Kysely } from 'kysely'
import type { Authority } from '../ca/authorities.ts'
import { type RevokedSerial, signCrl } from '../ca/crl.ts'
import type { EdgeConfig } from '../config/config.ts'
import { listRevokedSerials } from '../store/certificates.ts'
import type { Database } from '../store/schema.ts'
import { listRevokedServerSerials } from '../store/server-certificates.ts'

/** Kinds of certificates that are revoked one by one; the edge's own is short-lived and lies in memory. */
export const CRL_KINDS = ['client', 'connector', 'workload', 'server'] as const
export type CrlKind = (typeof CRL_KINDS)[number]

/** A certificate stays listed this long after its end: readers' clocks may be behind. */
const KEPT_AFTER_END_MS = 3_600_000
/** Anybody may ask, so a list is signed anew at most once in this time. */
const MAX_AGE_MS = 1_000

export interface CrlParts {
  db: Kysely<Database>
  clock: () => number
  config: Pick<EdgeConfig, 'ca' | 'certificates'>
}

/** Signs the list of one authority as it is now. It names what its siblings have signed too: serials are never used twice.
 *  @returns DER */
export async function writeCrl(
  authority: Authority,
  kind: CrlKind,
  { db, clock, config }: CrlParts,
): Promise<Buffer> {
  const now = clock()
  const endsAfter = now - KEPT_AFTER_END_MS
  const revoked: RevokedSerial[] =
    kind === 'server'
      ? await listRevokedServerSerials(db, endsAfter)
      : await listRevokedSerials(db, kind, endsAfter)
  const { backdateMs } = config.certificates
  return signCrl(authority, revoked, { now, backdateMs, lifetimeMs: config.ca.crlLifetimeMs })
}

/** The lists of all these authorities for whoever asks: those who ask at the same time get the same. */
export function openCrls(
  authorities: () => readonly Authority[],
  kind: CrlKind,
  parts: CrlParts,
): () => Promise<Buffer[]> {
  let last: { askedAt: number; crls: Promise<Buffer[]> } | undefined
  return () => {
    const now = parts.clock()
    if (last && now >= last.askedAt && now - last.askedAt < MAX_AGE_MS) return last.crls
    const crls = Promise.all(authorities().map((authority) => writeCrl(authority, kind, parts)))
    const asked = { askedAt: now, crls }
    crls.catch(() => {
      if (last === asked) last = undefined
    })
    last = asked
    return crls
  }
}
