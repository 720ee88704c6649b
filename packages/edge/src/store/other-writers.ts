import { type Kysely, sql } from 'kysely'
import type { Database } from './schema.ts'
import { CONNECTION_NAME } from './sqlite-database.ts'

/** Says whether another process has committed something to the file of SQLite since it was asked last. A connection that
 *  was opened anew cannot tell: then it says so too.
 *  @see https://www.sqlite.org/pragma.html#pragma_data_version */
export async function watchOtherWriters(db: Kysely<Database>): Promise<() => Promise<boolean>> {
  const readVersion = async () => {
    const { rows } = await sql<{ version: string }>`
      select ${sql.ref(CONNECTION_NAME)}() || ' ' || data_version as version from pragma_data_version`.execute(
      db,
    )
    return rows[0]!.version
  }
  let seen = await readVersion()
  return async () => {
    const version = await readVersion()
    const isOther = version !== seen
    seen = version
    return isOther
  }
}
