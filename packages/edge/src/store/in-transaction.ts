import type { Kysely, Transaction } from 'kysely'
import type { Database } from './schema.ts'
import { isPostgres } from './take-turns.ts'

/** Runs `work` in one transaction; inside another one it joins that. Everything in `work` must go through `trx`:
 *  `db` reads what was before, and on SQLite a write through it would wait for this transaction to end. */
export function inTransaction<T>(
  db: Kysely<Database>,
  work: (trx: Transaction<Database>) => Promise<T>,
): Promise<T> {
  return db.isTransaction ? work(db as Transaction<Database>) : db.transaction().execute(work)
}

/** The same for one statement and telling the other edges of it. On SQLite there are none, and one statement is a
 *  transaction by itself. */
export function inTransactionToTell<T>(
  db: Kysely<Database>,
  work: (trx: Kysely<Database>) => Promise<T>,
): Promise<T> {
  return isPostgres(db) ? inTransaction(db, work) : work(db)
}
