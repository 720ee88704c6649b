import type { Kysely } from 'kysely'
import type { Database } from './schema.ts'

/** What may go: everything before the chain's newest checkpoint that is old enough, or what has no chain. */
export interface Expired {
  /** null: records without a chain. */
  chain: string | null
  /** The last position that goes, or the last number where there is no chain. */
  through: number
  records: number
}

/** @param before epoch milliseconds */
export async function findExpired(db: Kysely<Database>, before: number): Promise<Expired[]> {
  const checkpoints = await db
    .selectFrom('audit_events')
    .select(['chain', (eb) => eb.fn.max('position').as('position')])
    .where('type', '=', 'audit.checkpoint')
    .where('at', '<', before)
    .where('chain', 'is not', null)
    .groupBy('chain')
    .execute()
  const expired: Expired[] = []
  for (const { chain, position } of checkpoints) {
    const through = Number(position) - 1
    expired.push({ chain, through, records: await count(db, { chain, through }) })
  }
  const { last } = await db
    .selectFrom('audit_events')
    .select((eb) => eb.fn.max('seq').as('last'))
    .where('chain', 'is', null)
    .where('at', '<', before)
    .executeTakeFirstOrThrow()
  const unlinked = { chain: null, through: Number(last ?? 0) }
  expired.push({ ...unlinked, records: await count(db, unlinked) })
  return expired.filter(({ records }) => records > 0)
}

async function count(db: Kysely<Database>, { chain, through }: Omit<Expired, 'records'>): Promise<number> {
  const query = db.selectFrom('audit_events').select((eb) => eb.fn.countAll<number>().as('n'))
  const counted =
    chain === null
      ? query.where('chain', 'is', null).where('seq', '<=', through)
      : query.where('chain', '=', chain).where('position', '<=', through)
  return Number((await counted.executeTakeFirstOrThrow()).n)
}

/** Deletes some of it, the oldest first, so that a crash in between leaves no hole.
 *  @returns how many; 0 when nothing is left */
export async function deleteExpired(
  db: Kysely<Database>,
  { chain, through }: Omit<Expired, 'records'>,
  limit: number,
): Promise<number> {
  const rows = db.selectFrom('audit_events').select('seq').orderBy('seq').limit(limit)
  const seqs =
    chain === null
      ? rows.where('chain', 'is', null).where('seq', '<=', through)
      : rows.where('chain', '=', chain).where('position', '<=', through)
  const result = await db.deleteFrom('audit_events').where('seq', 'in', seqs).executeTakeFirst()
  return Number(result.numDeletedRows)
}
