import { readFileSync } from 'node:fs'
import path from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import pg from 'pg'
import type { EdgeProcess } from './edge-process.ts'

/** What really stands in an edge's tables, beside whatever the edge says. Works while the edge runs. */
export interface StoreReader extends AsyncDisposable {
  kind: 'sqlite' | 'postgres'
  /** @param statement the same for both databases: no parameters, names as they are in the schema */
  // biome-ignore lint/suspicious/noExplicitAny: whatever was asked for
  rows(statement: string): Promise<any[]>
}

/** Opens the store that stands in the edge's configuration.
 *  @param mayWrite for somebody who has it in their hands */
export async function openStoreReader(
  edge: Pick<EdgeProcess, 'configFile' | 'dataDir'>,
  { mayWrite = false } = {},
): Promise<StoreReader> {
  const { store } = JSON.parse(readFileSync(edge.configFile, 'utf8')) as { store?: string }
  return store?.startsWith('postgres:') ? readPostgres(store) : readSqlite(edge.dataDir, !mayWrite)
}

function readSqlite(dataDir: string, readOnly: boolean): StoreReader {
  const database = new DatabaseSync(path.join(dataDir, 'edge.sqlite'), { readOnly, timeout: 10_000 })
  return {
    kind: 'sqlite',
    rows: async (statement) => database.prepare(statement).all(),
    [Symbol.asyncDispose]: async () => database.close(),
  }
}

async function readPostgres(url: string): Promise<StoreReader> {
  const { hostname, pathname, port, searchParams, username } = new URL(url)
  const client = new pg.Client({
    host: searchParams.get('host') ?? hostname,
    port: Number(port),
    user: username,
    database: pathname.slice(1),
  })
  await client.connect()
  return {
    kind: 'postgres',
    rows: async (statement) => (await client.query(statement)).rows,
    [Symbol.asyncDispose]: () => client.end(),
  }
}
