import { existsSync } from 'node:fs'
import { PosternError } from '@postern/shared/errors'
import { type Kysely, sql } from 'kysely'
import { describeStore, parseStoreLocation } from './location.ts'
import { openStore } from './open.ts'
import type { Database } from './schema.ts'

/** Every table, after the ones it points to, with its key. */
const TABLES: Readonly<Record<keyof Database, readonly string[]>> = {
  identities: ['id'],
  sessions: ['id'],
  oidc_records: ['model', 'id_hash'],
  upstream_logins: ['state_hash'],
  replay_guards: ['key_hash'],
  services: ['id'],
  labels: ['label'],
  certificates: ['serial'],
  server_certificates: ['serial'],
  enroll_tokens: ['token_hash'],
  policies: ['scope'],
  policy_history: ['scope', 'revision'],
  ssh_certificates: ['serial'],
  ssh_host_keys: ['service_id'],
  ssh_revoked_key_ids: ['key_id'],
  ssh_krl: ['id'],
  locks: ['key'],
  edge_keys: ['edge'],
  audit_events: ['seq'],
  audit_chains: ['id'],
  audit_sinks: ['id', 'chain'],
  acme_proofs: ['name'],
  leases: ['name'],
}
const ROWS_PER_INSERT = 500

/** Copies a store on SQLite into an empty one on PostgreSQL: all of it or nothing. Nobody writes to the old one
 *  meanwhile: an edge that still runs on it fails to.
 *  @param tell hears of each table when it is copied
 *  @throws USAGE_INVALID the wrong kinds, or nothing to copy · STATE_INVALID the target is not empty, or counts differ */
export async function copyStore(
  from: string,
  to: string,
  tell: (table: string, rows: number) => void,
): Promise<void> {
  const source = parseStoreLocation(from)
  if (source.kind !== 'sqlite' || parseStoreLocation(to).kind !== 'postgres') {
    throw new PosternError(
      'USAGE_INVALID',
      'a store is copied from sqlite:PATH to postgres://USER@HOST/DATABASE',
    )
  }
  if (!existsSync(source.path)) {
    throw new PosternError('USAGE_INVALID', `there is no store ${source.path}`)
  }
  await using old = await openStore(from)
  await using fresh = await openStore(to)
  await old.db.transaction().execute((reading) =>
    fresh.db.transaction().execute(async (writing) => {
      await sql`lock table ${sql.join(Object.keys(TABLES).map((table) => sql.table(table)))}`.execute(writing)
      await refuseFull(writing, to)
      for (const [table, key] of Object.entries(TABLES)) {
        tell(table, await copyTable(reading, writing, table, key))
      }
      // the next event goes on behind the last
      await sql`select setval(pg_get_serial_sequence('audit_events', 'seq'), coalesce(max(seq), 0) + 1, false)
        from audit_events`.execute(writing)
    }),
  )
}

async function refuseFull(db: Kysely<Database>, to: string): Promise<void> {
  for (const table of Object.keys(TABLES)) {
    if ((await countRows(db, table)) === 0) continue
    throw new PosternError(
      'STATE_INVALID',
      `the store ${describeStore(to)} is not empty: ${table} has rows`,
      {
        hint: 'name a new database with --to; one that an edge has used cannot be copied into',
      },
    )
  }
}

async function copyTable(
  from: Kysely<Database>,
  to: Kysely<Database>,
  table: string,
  key: readonly string[],
): Promise<number> {
  const total = await countRows(from, table)
  const order = sql.join(key.map((column) => sql.ref(column)))
  for (let start = 0; start < total; start += ROWS_PER_INSERT) {
    const { rows } = await sql<Record<string, unknown>>`select * from ${sql.table(table)} order by ${order}
      limit ${ROWS_PER_INSERT} offset ${start}`.execute(from)
    const columns = Object.keys(rows[0]!)
    const values = rows.map((row) => sql`(${sql.join(columns.map((column) => row[column]))})`)
    await sql`insert into ${sql.table(table)} (${sql.join(columns.map((column) => sql.ref(column)))})
      overriding system value values ${sql.join(values)}`.execute(to)
  }
  const copied = await countRows(to, table)
  if (copied === total) return copied
  throw new PosternError('STATE_INVALID', `of ${total} rows of ${table} ${copied} arrived; nothing was kept`)
}

async function countRows(db: Kysely<Database>, table: string): Promise<number> {
  const { rows } = await sql<{ n: number }>`select count(*) as n from ${sql.table(table)}`.execute(db)
  return rows[0]!.n
}
