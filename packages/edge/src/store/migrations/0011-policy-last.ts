import { type Kysely, sql } from 'kysely'

/** Puts the document behind what every flow asks of it: SQLite reads a row from its front, and would follow megabytes of
 *  rules page by page to get to the revision. */
export async function up(db: Kysely<unknown>): Promise<void> {
  const { schema } = db
  await schema
    .alterTable('policies')
    .addColumn('document', 'text', (column) => column.notNull().defaultTo(''))
    .execute()
  await sql`update policies set document = policy`.execute(db)
  await schema.alterTable('policies').dropColumn('policy').execute()
  await schema.alterTable('policies').renameColumn('document', 'policy').execute()
}
