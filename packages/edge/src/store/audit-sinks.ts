import type { Kysely } from 'kysely'
import type { Database } from './schema.ts'

/** How far a chain's records have been handed to a place outside. */
export interface SinkKey {
  id: string
  chain: string
}

/** Notes where a sink begins, once: one that is there goes on where it was. */
export async function startSink(db: Kysely<Database>, key: SinkKey, position: number): Promise<void> {
  await db
    .insertInto('audit_sinks')
    .values({ ...key, position })
    .onConflict((conflict) => conflict.columns(['id', 'chain']).doNothing())
    .execute()
}

export async function readSinkPosition(db: Kysely<Database>, { id, chain }: SinkKey): Promise<number> {
  const query = db
    .selectFrom('audit_sinks')
    .select('position')
    .where('id', '=', id)
    .where('chain', '=', chain)
  return (await query.executeTakeFirst())?.position ?? 0
}

export async function saveSinkPosition(
  db: Kysely<Database>,
  { id, chain }: SinkKey,
  position: number,
): Promise<void> {
  await db
    .updateTable('audit_sinks')
    .set({ position })
    .where('id', '=', id)
    .where('chain', '=', chain)
    .where('position', '<', position)
    .execute()
}
