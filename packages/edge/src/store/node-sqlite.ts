import { chmodSync, closeSync, mkdirSync, openSync } from 'node:fs'
import { dirname } from 'node:path'
import { DatabaseSync, type SQLInputValue, type StatementSync } from 'node:sqlite'
import { setTimeout as pause } from 'node:timers/promises'
import {
  type CompiledQuery,
  type DatabaseConnection,
  type Dialect,
  type DialectAdapter,
  type Driver,
  type QueryResult,
  SqliteAdapter,
  type SqliteDatabase,
  SqliteDialect,
  type SqliteStatement,
} from 'kysely'

const MAX_CACHED_STATEMENTS = 200
const CACHEABLE = /^\s*(?:select|insert|update|delete|with|begin|commit|rollback)/i

/** Kysely's SQLite dialect over node:sqlite, with two corrections: transactions take the write lock when they
 *  begin (`begin immediate`; a read that becomes a write fails at once with SQLITE_BUSY when another process
 *  wrote in between), and migrations run inside one (Kysely believes SQLite cannot, and a failed migration
 *  would leave half a schema). */
export function nodeSqliteDialect(path: string): Dialect {
  const dialect = new SqliteDialect({ database: async () => openDatabase(path) })
  return {
    createAdapter: (): DialectAdapter => new TransactionalSqliteAdapter(),
    createDriver: () => waitingForLocks(dialect.createDriver()),
    createIntrospector: (db) => dialect.createIntrospector(db),
    createQueryCompiler: () => dialect.createQueryCompiler(),
  }
}

const SQLITE_BUSY = 5
const BUSY_FOR_MS = 5_000
const ASK_AGAIN_MS = 50

/** Waits while another process has the file locked. SQLite's own waiting would stop every other flow of this process
 *  for as long: it is short, and the rest of the time others have their turn. */
function waitingForLocks(driver: Driver): Driver {
  const wrapped = new WeakMap<DatabaseConnection, DatabaseConnection>()
  const acquire = driver.acquireConnection.bind(driver)
  driver.acquireConnection = async (options) => {
    const connection = await acquire(options)
    const patient = wrapped.get(connection) ?? {
      executeQuery: <R>(query: CompiledQuery) => executePatiently<R>(connection, query),
      streamQuery: connection.streamQuery.bind(connection),
    }
    wrapped.set(connection, patient)
    return patient
  }
  return driver
}

async function executePatiently<R>(
  connection: DatabaseConnection,
  query: CompiledQuery,
): Promise<QueryResult<R>> {
  const deadline = performance.now() + BUSY_FOR_MS
  for (;;) {
    try {
      return await connection.executeQuery<R>(query)
    } catch (error) {
      // a statement that met a lock has done nothing
      const isBusy = ((error as { errcode?: number }).errcode ?? 0) % 256 === SQLITE_BUSY
      if (!isBusy || performance.now() > deadline) throw error
      await pause(ASK_AGAIN_MS)
    }
  }
}

class TransactionalSqliteAdapter extends SqliteAdapter {
  override get supportsTransactionalDdl(): boolean {
    return true
  }
}

function openDatabase(path: string): SqliteDatabase {
  if (path !== ':memory:') createPrivateFile(path)
  const database = new DatabaseSync(path, { timeout: 5_000, enableForeignKeyConstraints: true })
  // FULL: with WAL, NORMAL may lose the last commits when the power goes, and a flow counts on its record
  database.exec('pragma journal_mode = wal; pragma synchronous = full; pragma trusted_schema = off')
  database.exec('pragma busy_timeout = 20')
  const statements = new Map<string, StatementSync>()
  return {
    close: () => {
      statements.clear()
      database.close()
    },
    prepare: (sql) =>
      isOver(database, sql) ? NOTHING_TO_DO : asKyselyStatement(prepareCached(database, statements, sql)),
  }
}

/** On a full disk SQLite has rolled back before it says so, and Kysely's own rollback would fail and hide why. */
function isOver(database: DatabaseSync, sql: string): boolean {
  return /^\s*rollback\s*$/i.test(sql) && !database.isTransaction
}

const NOTHING_TO_DO: SqliteStatement = {
  reader: false,
  all: () => [],
  run: () => ({ changes: 0, lastInsertRowid: 0 }),
  iterate: () => [][Symbol.iterator](),
}

/** SQLite gives its -wal and -shm files the mode of the database, so this one mode decides for all three. */
function createPrivateFile(path: string): void {
  mkdirSync(dirname(path), { recursive: true, mode: 0o700 })
  closeSync(openSync(path, 'a', 0o600))
  chmodSync(path, 0o600)
}

function prepareCached(
  database: DatabaseSync,
  statements: Map<string, StatementSync>,
  text: string,
): StatementSync {
  const sql = /^\s*begin\s*$/i.test(text) ? 'begin immediate' : text
  if (!CACHEABLE.test(sql)) return database.prepare(sql)
  const statement = statements.get(sql) ?? database.prepare(sql)
  statements.delete(sql)
  statements.set(sql, statement) // the newest is last: the first of the map is the one unused for longest
  if (statements.size > MAX_CACHED_STATEMENTS) statements.delete(statements.keys().next().value!)
  return statement
}

function asKyselyStatement(statement: StatementSync): SqliteStatement {
  const values = (parameters: ReadonlyArray<unknown>) => parameters as SQLInputValue[]
  return {
    reader: statement.columns().length > 0,
    all: (parameters) => statement.all(...values(parameters)),
    run: (parameters) => statement.run(...values(parameters)),
    iterate: (parameters) => statement.iterate(...values(parameters)),
  }
}
