import type { Kysely } from 'kysely'

/** Certificates of private services, which the edge itself believes nowhere: no service and no session is theirs. */
export async function up(db: Kysely<unknown>): Promise<void> {
  await db.schema
    .createTable('server_certificates')
    .addColumn('serial', 'text', (column) => column.primaryKey())
    .addColumn('key_hash', 'text', (column) => column.notNull())
    .addColumn('names', 'text', (column) => column.notNull())
    .addColumn('identity_id', 'text', (column) => column.notNull().references('identities.id'))
    .addColumn('not_before', 'bigint', (column) => column.notNull())
    .addColumn('not_after', 'bigint', (column) => column.notNull())
    .addColumn('issued_at', 'bigint', (column) => column.notNull())
    .addColumn('revoked_at', 'bigint')
    .addColumn('revoked_reason', 'text')
    .execute()
}
