import type { Kysely } from 'kysely'

/** Tokens with which servers become connectors of one service without a person at hand. */
export async function up(db: Kysely<unknown>): Promise<void> {
  await db.schema
    .createTable('enroll_tokens')
    .addColumn('token_hash', 'text', (column) => column.primaryKey())
    .addColumn('id', 'text', (column) => column.notNull().unique())
    .addColumn('service_id', 'text', (column) => column.notNull().references('services.id'))
    .addColumn('created_by', 'text', (column) => column.notNull().references('identities.id'))
    .addColumn('connector_id', 'text', (column) => column.notNull())
    .addColumn('created_at', 'bigint', (column) => column.notNull())
    .addColumn('expires_at', 'bigint', (column) => column.notNull())
    .addColumn('used_at', 'bigint')
    .addColumn('key_hash', 'text')
    .execute()
  for (const column of ['service_id', 'expires_at']) {
    await db.schema.createIndex(`enroll_tokens_${column}`).on('enroll_tokens').column(column).execute()
  }
}
