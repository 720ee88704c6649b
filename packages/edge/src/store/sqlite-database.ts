import { randomUUID } from 'node:crypto'
import { chmodSync, closeSync, existsSync, fchownSync, mkdirSync, openSync } from 'node:fs'
import { dirname } from 'node:path'
import {
  DatabaseSync,
  type DatabaseSyncOptions,
  type SQLInputValue,
  type SQLOutputValue,
  type StatementSync,
} from 'node:sqlite'
import { ownerFor } from '../private-file.ts'

const MAX_CACHED_STATEMENTS = 200
/** How long another process may have the file locked. */
const LOCK_TIMEOUT_MS = 5_000
const LOOK_AGAIN_MS = 20
/** https://www.sqlite.org/rescode.html#busy */
export const SQLITE_BUSY = 5
/** SQL function: the name of the connection that writes, a new one each time it is opened. */
export const CONNECTION_NAME = 'postern_connection'
const CACHEABLE = /^\s*(?:select|insert|update|delete|with|begin|commit|rollback|savepoint|release)/i

export type Row = Record<string, SQLOutputValue>

export interface Outcome {
  rows: Row[]
  changes: number | bigint
}

/** One connection to a file. It blocks whoever calls it, while it works and while another process has the file locked. */
export class SqliteDatabase {
  readonly #database: DatabaseSync
  readonly #statements = new Map<string, StatementSync>()

  private constructor(path: string, options: DatabaseSyncOptions) {
    this.#database = new DatabaseSync(path, { ...options, enableForeignKeyConstraints: true })
    this.#database.exec('pragma trusted_schema = off')
  }

  /** Creates the file where there is none. */
  static forWriting(path: string): SqliteDatabase {
    if (path !== ':memory:') createPrivateFile(path)
    const database = new SqliteDatabase(path, { timeout: LOCK_TIMEOUT_MS })
    database.#changeToWal()
    // FULL: with WAL, NORMAL may lose the last commits when the power goes, and a flow counts on its record
    database.#database.exec('pragma synchronous = full')
    const name = randomUUID()
    database.#database.function(CONNECTION_NAME, () => name)
    return database
  }

  /** Waits by itself: SQLite gives up at once when two processes change a new file at the same moment. */
  #changeToWal(): void {
    const deadline = performance.now() + LOCK_TIMEOUT_MS
    for (;;) {
      try {
        return this.#database.exec('pragma journal_mode = wal')
      } catch (error) {
        const isLocked = (error as { errcode?: number }).errcode === SQLITE_BUSY
        if (!isLocked || performance.now() > deadline) throw error
        Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, LOOK_AGAIN_MS)
      }
    }
  }

  /** Of a file that is open for writing elsewhere. Writers do not block it, nor it them. */
  static forReading(path: string): SqliteDatabase {
    return new SqliteDatabase(path, { timeout: 20, readOnly: true })
  }

  /** @throws what SQLite throws */
  run(sql: string, parameters: readonly unknown[]): Outcome {
    const statement = this.#prepare(sql)
    const values = parameters as SQLInputValue[]
    if (statement.columns().length > 0) return { rows: statement.all(...values), changes: 0 }
    return { rows: [], changes: statement.run(...values).changes }
  }

  get isTransaction(): boolean {
    return this.#database.isTransaction
  }

  close(): void {
    this.#statements.clear()
    this.#database.close()
  }

  #prepare(sql: string): StatementSync {
    if (!CACHEABLE.test(sql)) return this.#database.prepare(sql)
    const statement = this.#statements.get(sql) ?? this.#database.prepare(sql)
    this.#statements.delete(sql)
    this.#statements.set(sql, statement) // the newest is last: the first is the one unused for longest
    if (this.#statements.size > MAX_CACHED_STATEMENTS)
      this.#statements.delete(this.#statements.keys().next().value!)
    return statement
  }
}

/** SQLite gives its -wal and -shm files the mode of the database, and root's its owner: these decide for all three. */
function createPrivateFile(path: string): void {
  const folder = dirname(path)
  mkdirSync(folder, { recursive: true, mode: 0o700 })
  const owner = existsSync(path) ? undefined : ownerFor(folder)
  const file = openSync(path, 'a', 0o600)
  if (owner) fchownSync(file, owner.uid, owner.gid)
  closeSync(file)
  chmodSync(path, 0o600)
}
