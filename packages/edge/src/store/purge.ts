import type { Kysely } from 'kysely'
import type { Database } from './schema.ts'

const DAY_MS = 86_400_000
/** A connector may renew 30 days after its certificate ended; an unknown serial is refused like an expired one. */
const CERTIFICATE_KEPT_MS = 60 * DAY_MS
/** So long the log still says whose token it was that came too late. */
const ENROLL_TOKEN_KEPT_MS = 7 * DAY_MS
/** Longer than any certificate that points to the session. */
const SESSION_KEPT_MS = 90 * DAY_MS
/** Long after anybody asks about an edge that was killed. */
const EDGE_KEPT_MS = 10 * 60_000

/** Deletes what can no longer be used, nothing that somebody may still ask about: audit, services, labels and
 *  identities stay. @returns rows deleted */
export async function purgeExpired(db: Kysely<Database>, now: number): Promise<number> {
  const results = [
    await db.deleteFrom('oidc_records').where('expires_at', '<=', now).executeTakeFirst(),
    await db.deleteFrom('upstream_logins').where('expires_at', '<=', now).executeTakeFirst(),
    await db.deleteFrom('replay_guards').where('expires_at', '<=', now).executeTakeFirst(),
    await db
      .deleteFrom('enroll_tokens')
      .where('expires_at', '<=', now - ENROLL_TOKEN_KEPT_MS)
      .executeTakeFirst(),
    await db
      .deleteFrom('certificates')
      .where('not_after', '<=', now - CERTIFICATE_KEPT_MS)
      .executeTakeFirst(),
    await db
      .deleteFrom('server_certificates')
      .where('not_after', '<=', now - CERTIFICATE_KEPT_MS)
      .executeTakeFirst(),
    await db
      .deleteFrom('ssh_certificates')
      .where('not_after', '<=', now - CERTIFICATE_KEPT_MS)
      .executeTakeFirst(),
    await db.deleteFrom('acme_proofs').where('expires_at', '<=', now).executeTakeFirst(),
    await db.deleteFrom('leases').where('until', '<=', now).executeTakeFirst(),
    await db.deleteFrom('locks').where('until', '<=', now).executeTakeFirst(),
    await db
      .deleteFrom('edge_keys')
      .where('seen_at', '<=', now - EDGE_KEPT_MS)
      .executeTakeFirst(),
    await db.deleteFrom('ssh_revoked_key_ids').where('until', '<=', now).executeTakeFirst(),
    await db
      .deleteFrom('sessions')
      .where('expires_at', '<=', now - SESSION_KEPT_MS)
      .where('id', 'not in', (certificates) =>
        certificates.selectFrom('certificates').select('session_id').where('session_id', 'is not', null),
      )
      .where('id', 'not in', (certificates) =>
        certificates.selectFrom('ssh_certificates').select('session_id').where('session_id', 'is not', null),
      )
      .executeTakeFirst(),
  ]
  return results.reduce((sum, result) => sum + Number(result.numDeletedRows), 0)
}
