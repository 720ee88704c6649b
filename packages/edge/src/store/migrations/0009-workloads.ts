import type { Kysely } from 'kysely'

/** Certificates of programs: whose they are, and how long they may be renewed. */
export async function up(db: Kysely<unknown>): Promise<void> {
  await db.schema.alterTable('certificates').addColumn('workload_id', 'text').execute()
  await db.schema.alterTable('certificates').addColumn('workload', 'text').execute()
  await db.schema.alterTable('certificates').addColumn('renewable_until', 'bigint').execute()
  await db.schema.createIndex('certificates_workload_id').on('certificates').column('workload_id').execute()
}
