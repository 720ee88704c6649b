import type { Kysely } from 'kysely'

/** People who are refused everywhere for a while. */
export async function up(db: Kysely<unknown>): Promise<void> {
  await db.schema
    .createTable('locks')
    .addColumn('key', 'text', (column) => column.primaryKey())
    .addColumn('email', 'text', (column) => column.notNull())
    .addColumn('until', 'bigint')
    .addColumn('reason', 'text', (column) => column.notNull())
    .addColumn('locked_at', 'bigint', (column) => column.notNull())
    .addColumn('locked_by', 'text', (column) => column.notNull())
    .execute()
  await db.schema.createIndex('locks_email').on('locks').column('email').execute()
  await db.schema.createIndex('certificates_identity_id').on('certificates').column('identity_id').execute()
}
