import type { Kysely } from 'kysely'

/** What became of one flow is looked up by its id. */
export async function up(db: Kysely<unknown>): Promise<void> {
  await db.schema.createIndex('audit_events_flow').on('audit_events').column('flow_id').execute()
}
