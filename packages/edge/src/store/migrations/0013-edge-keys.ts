import type { Kysely } from 'kysely'

/** What edges that run on one store say of the keys they have: public halves, as fingerprints. */
export async function up(db: Kysely<unknown>): Promise<void> {
  await db.schema
    .createTable('edge_keys')
    .addColumn('edge', 'text', (column) => column.primaryKey())
    .addColumn('place', 'text', (column) => column.notNull())
    .addColumn('keys', 'text', (column) => column.notNull())
    .addColumn('seen_at', 'bigint', (column) => column.notNull())
    .execute()
}
