import type { AuditRecord } from '@postern/shared/api/audit'
import type { Kysely } from 'kysely'
import { listAuditEvents } from '../store/audit-events.ts'
import type { Database } from '../store/schema.ts'

/** Events as the API shows them, oldest first: the `limit` events after number `after`, or without it the newest
 *  `limit`. */
export async function listAuditRecords(
  db: Kysely<Database>,
  page: { after?: number | undefined; limit: number; type?: string | undefined },
): Promise<AuditRecord[]> {
  const rows = await listAuditEvents(db, page)
  return rows.map(({ seq, at, event }) => ({ ...JSON.parse(event), seq, at }))
}
