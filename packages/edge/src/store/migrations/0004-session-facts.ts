import type { Kysely } from 'kysely'

/** How the person signed in at the provider. What it did not say stays empty, as for every session before. */
export async function up(db: Kysely<unknown>): Promise<void> {
  await db.schema
    .alterTable('sessions')
    .addColumn('amr', 'text', (column) => column.notNull().defaultTo('[]'))
    .execute()
  await db.schema.alterTable('sessions').addColumn('acr', 'text').execute()
  await db.schema.alterTable('sessions').addColumn('auth_time', 'bigint').execute()
}
