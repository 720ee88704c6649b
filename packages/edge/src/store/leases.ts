import type { Kysely } from 'kysely'
import type { Database } from './schema.ts'

/** What one edge of a store does at a time, and for longer than a transaction. A lease ends by itself, so that one that
 *  died holds nobody up; whoever works longer has to keep it. */
export interface Lease {
  name: 'acme-order'
  /** The edge: one for each start. */
  holder: string
}

/** Takes a lease that nobody has, that has run out, or that is this holder's: then it lasts longer.
 *  @param until epoch milliseconds
 *  @returns whether this holder has it now */
export async function takeLease(
  db: Kysely<Database>,
  { name, holder }: Lease,
  { now, until }: { now: number; until: number },
): Promise<boolean> {
  const result = await db
    .insertInto('leases')
    .values({ name, holder, until })
    .onConflict((conflict) =>
      conflict
        .column('name')
        .doUpdateSet({ holder, until })
        .where((row) => row.or([row('leases.until', '<=', now), row('leases.holder', '=', holder)])),
    )
    .executeTakeFirst()
  return (result.numInsertedOrUpdatedRows ?? 0n) > 0n
}

/** Makes it last longer. @returns false when it has run out, or another one has it */
export async function keepLease(
  db: Kysely<Database>,
  { name, holder }: Lease,
  { now, until }: { now: number; until: number },
): Promise<boolean> {
  const result = await db
    .updateTable('leases')
    .set({ until })
    .where('name', '=', name)
    .where('holder', '=', holder)
    .where('until', '>', now)
    .executeTakeFirst()
  return result.numUpdatedRows > 0n
}

export async function endLease(db: Kysely<Database>, { name, holder }: Lease): Promise<void> {
  await db.deleteFrom('leases').where('name', '=', name).where('holder', '=', holder).execute()
}
