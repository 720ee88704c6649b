import type { Kysely } from 'kysely'
import { inTransaction } from './in-transaction.ts'
import type { Database } from './schema.ts'
import { takeTurn } from './take-turns.ts'

/** An audit event as it is written; `audit/event.ts` knows what is in it. */
export interface AuditRow {
  at: number
  type: string
  flowId: string | undefined
  identityId: string | undefined
  serviceId: string | undefined
  /** JSON of the whole event. */
  event: string
}

/** Rows per statement: SQLite takes 32,766 values in one, PostgreSQL 65,535. */
const ROWS_PER_INSERT = 500

/** Writes all of them or none; they are on disk when this resolves. Numbers appear in their order: whoever reads on
 *  from the highest number misses none. */
export async function insertAuditEvents(db: Kysely<Database>, rows: readonly AuditRow[]): Promise<void> {
  if (rows.length === 0) return
  await inTransaction(db, async (trx) => {
    await takeTurn(trx, 'audit') // PostgreSQL numbers a row when it is written, and shows it when that is committed
    for (let start = 0; start < rows.length; start += ROWS_PER_INSERT) {
      const values = rows.slice(start, start + ROWS_PER_INSERT).map((row) => ({
        at: row.at,
        type: row.type,
        flow_id: row.flowId ?? null,
        identity_id: row.identityId ?? null,
        service_id: row.serviceId ?? null,
        event: row.event,
      }))
      await trx.insertInto('audit_events').values(values).execute()
    }
  })
}

/** What is written of one flow, in its order: a handful of events. */
export async function listFlowEvents(
  db: Kysely<Database>,
  flowId: string,
): Promise<{ at: number; event: string }[]> {
  return db
    .selectFrom('audit_events')
    .select(['at', 'event'])
    .where('flow_id', '=', flowId)
    .orderBy('seq')
    .limit(100)
    .execute()
}

/** Oldest first: the `limit` events after `after`; without `after` the newest `limit`. */
export async function listAuditEvents(
  db: Kysely<Database>,
  page: { after?: number | undefined; limit: number; type?: string | undefined },
): Promise<(AuditRow & { seq: number })[]> {
  let query = db.selectFrom('audit_events').selectAll().limit(page.limit)
  if (page.type !== undefined) query = query.where('type', '=', page.type)
  if (page.after !== undefined) query = query.where('seq', '>', page.after).orderBy('seq', 'asc')
  else query = query.orderBy('seq', 'desc')
  const rows = await query.execute()
  if (page.after === undefined) rows.reverse()
  return rows.map((row) => ({
    seq: row.seq,
    at: row.at,
    type: row.type,
    flowId: row.flow_id ?? undefined,
    identityId: row.identity_id ?? undefined,
    serviceId: row.service_id ?? undefined,
    event: row.event,
  }))
}
