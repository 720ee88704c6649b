import type { Kysely } from 'kysely'

/** Certificates for ssh, host keys as connectors reported them, and what the list of revoked certificates needs. */
export async function up(db: Kysely<unknown>): Promise<void> {
  await db.schema.alterTable('services').addColumn('ssh', 'text').execute()
  await db.schema
    .createTable('ssh_certificates')
    .addColumn('serial', 'text', (column) => column.primaryKey())
    .addColumn('kind', 'text', (column) => column.notNull())
    .addColumn('fingerprint', 'text', (column) => column.notNull())
    .addColumn('key_id', 'text', (column) => column.notNull())
    .addColumn('principals', 'text', (column) => column.notNull())
    .addColumn('identity_id', 'text', (column) => column.notNull().references('identities.id'))
    .addColumn('session_id', 'text', (column) => column.references('sessions.id'))
    .addColumn('service_id', 'text', (column) => column.notNull().references('services.id'))
    .addColumn('client_address', 'text', (column) => column.notNull())
    .addColumn('connector_id', 'text')
    .addColumn('not_before', 'bigint', (column) => column.notNull())
    .addColumn('not_after', 'bigint', (column) => column.notNull())
    .addColumn('issued_at', 'bigint', (column) => column.notNull())
    .addColumn('revoked_at', 'bigint')
    .addColumn('revoked_reason', 'text')
    .execute()
  for (const column of ['identity_id', 'session_id', 'service_id', 'connector_id', 'not_after']) {
    await db.schema.createIndex(`ssh_certificates_${column}`).on('ssh_certificates').column(column).execute()
  }
  await db.schema
    .createTable('ssh_host_keys')
    .addColumn('service_id', 'text', (column) => column.primaryKey().references('services.id'))
    .addColumn('keys', 'text', (column) => column.notNull())
    .addColumn('revision', 'integer', (column) => column.notNull())
    .addColumn('pending', 'text')
    .addColumn('updated_at', 'bigint', (column) => column.notNull())
    .execute()
  await db.schema
    .createTable('ssh_revoked_key_ids')
    .addColumn('key_id', 'text', (column) => column.primaryKey())
    .addColumn('until', 'bigint', (column) => column.notNull())
    .execute()
  await db.schema
    .createTable('ssh_krl')
    .addColumn('id', 'text', (column) => column.primaryKey())
    .addColumn('version', 'bigint', (column) => column.notNull())
    .execute()
}
