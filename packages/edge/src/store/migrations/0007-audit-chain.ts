import { type Kysely, sql } from 'kysely'
import type { Database } from '../schema.ts'
import { isPostgres } from '../take-turns.ts'

/** Each record with the hash of the one before. What is there already stays as it is, and outside of every chain: a
 *  hash made now would prove nothing about then. */
export async function up(db: Kysely<unknown>): Promise<void> {
  for (const column of ['code', 'chain', 'previous', 'hash']) {
    await db.schema.alterTable('audit_events').addColumn(column, 'text').execute()
  }
  await db.schema.alterTable('audit_events').addColumn('position', 'bigint').execute()
  await fillCodes(db)
  const index = (name: string, ...columns: string[]) =>
    db.schema.createIndex(`audit_events_${name}`).on('audit_events').columns(columns)
  await index('chain', 'chain', 'position').unique().execute()
  await index('code', 'code', 'seq').execute()
  await index('identity', 'identity_id', 'seq').execute()
  await index('service', 'service_id', 'seq').execute()
  await index('at', 'at').execute()
  await db.schema
    .createTable('audit_chains')
    .addColumn('id', 'text', (column) => column.primaryKey())
    .addColumn('position', 'bigint', (column) => column.notNull())
    .addColumn('hash', 'text', (column) => column.notNull())
    .addColumn('checkpoint_position', 'bigint', (column) => column.notNull())
    .addColumn('checkpoint_at', 'bigint', (column) => column.notNull())
    .execute()
  await db.schema
    .createTable('audit_sinks')
    .addColumn('id', 'text', (column) => column.notNull())
    .addColumn('chain', 'text', (column) => column.notNull())
    .addColumn('position', 'bigint', (column) => column.notNull())
    .addPrimaryKeyConstraint('audit_sinks_key', ['id', 'chain'])
    .execute()
}

/** Text search on PostgreSQL: its json refuses events with `\u0000`, which are valid here. */
async function fillCodes(db: Kysely<unknown>): Promise<void> {
  if (isPostgres(db as Kysely<Database>)) {
    await sql`update audit_events set code = substring(event from '"code":"([A-Z_]+)"')`.execute(db)
  } else await sql`update audit_events set code = json_extract(event, '$.code')`.execute(db)
}
