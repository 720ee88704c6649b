import { type Kysely, PostgresAdapter, sql, type Transaction } from 'kysely'
import type { Database } from './schema.ts'

/** What one transaction does at a time. */
export type Turn =
  | 'services'
  | 'policies'
  | 'audit'
  | 'edge-keys'
  | `lineage:${string}`
  | `enroll:${string}`
  | `host-keys:${string}`

/** Waits until no other transaction has this turn, and keeps it until the end of this one. On SQLite a transaction
 *  is alone from its beginning. On PostgreSQL two that look first and write then both see the state before either;
 *  what is read after this call is what the one before has left.
 *
 *  Take `lineage` before `audit`, and only one of a kind: then nobody waits in a circle. */
export async function takeTurn(trx: Transaction<Database>, turn: Turn): Promise<void> {
  if (!isPostgres(trx)) return
  await sql`select pg_advisory_xact_lock(hashtextextended(${`postern:${turn}`}, 0))`.execute(trx)
}

export function isPostgres(db: Kysely<Database>): boolean {
  return db.getExecutor().adapter instanceof PostgresAdapter
}
