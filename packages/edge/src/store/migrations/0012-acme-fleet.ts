import type { Kysely } from 'kysely'

/** What edges of one store need to get certificates of a public CA: proofs that each of them shows for any other, and
 *  whose turn it is. */
export async function up(db: Kysely<unknown>): Promise<void> {
  await db.schema
    .createTable('acme_proofs')
    .addColumn('name', 'text', (column) => column.primaryKey())
    .addColumn('token', 'text', (column) => column.notNull())
    .addColumn('sealed', 'text', (column) => column.notNull())
    .addColumn('expires_at', 'bigint', (column) => column.notNull())
    .execute()
  await db.schema.createIndex('acme_proofs_token').on('acme_proofs').column('token').execute()
  await db.schema
    .createTable('leases')
    .addColumn('name', 'text', (column) => column.primaryKey())
    .addColumn('holder', 'text', (column) => column.notNull())
    .addColumn('until', 'bigint', (column) => column.notNull())
    .execute()
}
