import type { Kysely } from 'kysely'

/** Whether a document trusts CAs of others: asked in every handshake, where the document itself is not read. */
export async function up(db: Kysely<unknown>): Promise<void> {
  for (const table of ['policies', 'policy_history']) {
    await db.schema
      .alterTable(table)
      .addColumn('trusts_cas', 'integer', (column) => column.notNull().defaultTo(0))
      .execute()
  }
}
