import { setImmediate as nextTurn } from 'node:timers/promises'
import type { Kysely } from 'kysely'
import { deleteExpired, findExpired } from '../store/audit-retention.ts'
import type { Database } from '../store/schema.ts'
import type { AuditLog } from './record.ts'

/** SQLite does nothing else meanwhile. */
const RECORDS_AT_ONCE = 500

/** Deletes records that are older than they may be kept, up to a checkpoint: what is left begins with a record that
 *  signs what was before it. That they go is recorded before they do.
 *  @returns how many */
export async function pruneAuditLog(
  db: Kysely<Database>,
  audit: Pick<AuditLog, 'record'>,
  before: number,
): Promise<number> {
  let deleted = 0
  for (const { chain, through, records } of await findExpired(db, before)) {
    await audit.record({ type: 'audit.pruned', ...(chain === null ? {} : { chain }), through, records })
    for (;;) {
      const count = await deleteExpired(db, { chain, through }, RECORDS_AT_ONCE)
      if (count === 0) break
      deleted += count
      await nextTurn()
    }
  }
  return deleted
}
