import {
  CompiledQuery,
  type DatabaseConnection,
  DeleteQueryNode,
  type Dialect,
  type DialectAdapter,
  type Driver,
  InsertQueryNode,
  type QueryResult,
  type RootOperationNode,
  SelectQueryNode,
  SqliteAdapter,
  SqliteDialect,
  UpdateQueryNode,
} from 'kysely'
import { type Outcome, SQLITE_BUSY, SqliteDatabase } from './sqlite-database.ts'
import { type Batch, isFailure, type Result, SqliteThread, toError } from './sqlite-thread.ts'
import { type ConditionalWrite, isConditional } from './write-if.ts'

/** Kysely's SQLite dialect over node:sqlite. A thread writes, so that no flow waits for the disk with those whose record
 *  goes there (docs/decisions/0015); what is committed is read here. Transactions take the write lock when they begin: a
 *  read that becomes a write fails at once with SQLITE_BUSY when another process wrote in between. Migrations run inside
 *  one: Kysely believes that SQLite cannot, and a failed one would leave half a schema. */
export function nodeSqliteDialect(path: string): Dialect {
  const { createIntrospector, createQueryCompiler } = SqliteDialect.prototype
  return {
    createAdapter: (): DialectAdapter => new ThreadedSqliteAdapter(),
    createDriver: () => new ThreadedSqliteDriver(path),
    createIntrospector,
    createQueryCompiler,
  }
}

class ThreadedSqliteAdapter extends SqliteAdapter {
  override get supportsTransactionalDdl(): boolean {
    return true
  }

  /** Who reads does not wait for who writes. */
  override get supportsMultipleConnections(): boolean {
    return true
  }
}

class ThreadedSqliteDriver implements Driver {
  readonly #path: string
  readonly #writer: Writer
  #reader: SqliteDatabase | undefined

  constructor(path: string) {
    this.#path = path
    this.#writer = new Writer(path)
  }

  async init(): Promise<void> {
    await this.#writer.thread()
    if (this.#path === ':memory:') return // it has one connection
    try {
      this.#reader = SqliteDatabase.forReading(this.#path)
    } catch (error) {
      await this.#writer.close()
      throw error
    }
  }

  async acquireConnection(): Promise<SqliteConnection> {
    return new SqliteConnection(this.#writer, this.#reader)
  }

  beginTransaction(connection: SqliteConnection): Promise<void> {
    return connection.begin()
  }

  async commitTransaction(connection: SqliteConnection): Promise<void> {
    await connection.executeQuery(CompiledQuery.raw('commit'))
  }

  async rollbackTransaction(connection: SqliteConnection): Promise<void> {
    await connection.executeQuery(CompiledQuery.raw('rollback'))
  }

  async releaseConnection(connection: SqliteConnection): Promise<void> {
    connection.release()
  }

  async destroy(): Promise<void> {
    this.#reader?.close() // the last one tidies up, and only a writer can
    await this.#writer.close()
  }
}

/** What waits to be written: a batch, or somebody who wants to write alone until they say that they are done. */
type Waiting = WaitingBatch | Turn
type WaitingBatch = { batch: Batch } & Pick<PromiseWithResolvers<Outcome>, 'resolve' | 'reject'>
interface Turn {
  begin: (end: () => void) => void
}

/** The thread, opened again when it has broken, and whose turn it is to write: first come, first served. Batches that wait
 *  side by side go to the disk with one commit. */
class Writer {
  readonly #path: string
  readonly #waiting: Waiting[] = []
  #opening: Promise<SqliteThread> | undefined
  #isBusy = false

  constructor(path: string) {
    this.#path = path
  }

  async thread(): Promise<SqliteThread> {
    for (;;) {
      this.#opening ??= SqliteThread.open(this.#path)
      const opening = this.#opening
      const thread = await opening.catch(() => undefined)
      if (thread && !thread.isOver) return thread
      if (this.#opening === opening) this.#opening = undefined
      if (!thread) await opening
    }
  }

  /** @returns ends the turn */
  takeTurn(): Promise<() => void> {
    return new Promise((begin) => this.#add({ begin }))
  }

  /** @throws what SQLite throws */
  write(batch: Batch): Promise<Outcome> {
    return new Promise((resolve, reject) => this.#add({ batch, resolve, reject }))
  }

  /** After what waits. */
  async close(): Promise<void> {
    await this.takeTurn()
    const thread = await this.#opening?.catch(() => undefined)
    await thread?.close()
  }

  #add(waiting: Waiting): void {
    this.#waiting.push(waiting)
    if (!this.#isBusy) void this.#writeAll()
  }

  /** Runs until nothing waits. Never rejects: each hears of their own. */
  async #writeAll(): Promise<void> {
    this.#isBusy = true
    await new Promise(setImmediate) // lets those of this turn join
    for (let next = this.#waiting[0]; next; next = this.#waiting[0]) {
      if ('batch' in next) await this.#writeBatches()
      else await this.#giveTurn(next)
    }
    this.#isBusy = false
  }

  async #giveTurn({ begin }: Turn): Promise<void> {
    this.#waiting.shift()
    await new Promise<void>(begin)
  }

  async #writeBatches(): Promise<void> {
    const end = this.#waiting.findIndex((waiting) => !('batch' in waiting))
    const group = this.#waiting.splice(0, end === -1 ? this.#waiting.length : end)
    const batches = group.filter((waiting) => 'batch' in waiting)
    try {
      const results = await (await this.thread()).writeTogether(batches.map(({ batch }) => batch))
      for (const [index, result] of results.entries()) settle(batches[index]!, result)
    } catch (error) {
      for (const { reject } of batches) reject(error)
    }
  }
}

function settle({ resolve, reject }: WaitingBatch, result: Result): void {
  if (isFailure(result)) reject(toError(result))
  else resolve(result)
}

/** A transaction from its beginning to its end; outside of one each statement is for itself. */
interface Transaction {
  /** With which it ends: it never goes on in another. */
  thread: SqliteThread
  endTurn: () => void
  hasBegun: boolean
}

class SqliteConnection implements DatabaseConnection {
  readonly #writer: Writer
  readonly #reader: SqliteDatabase | undefined
  #transaction: Transaction | undefined

  constructor(writer: Writer, reader: SqliteDatabase | undefined) {
    this.#writer = writer
    this.#reader = reader
  }

  /** Waits for its turn only: the first statement brings the beginning along. */
  async begin(): Promise<void> {
    const endTurn = await this.#writer.takeTurn()
    try {
      this.#transaction = { thread: await this.#writer.thread(), endTurn, hasBegun: false }
    } catch (error) {
      endTurn()
      throw error
    }
  }

  release(): void {
    this.#transaction?.endTurn()
    this.#transaction = undefined
  }

  async executeQuery<R>(query: CompiledQuery): Promise<QueryResult<R>> {
    const { sql, parameters } = query
    const { rows, changes } = await (this.#transaction
      ? runInside(this.#transaction, sql, parameters)
      : this.#runOutside(query))
    return { rows: rows as R[], numAffectedRows: BigInt(changes) }
  }

  // biome-ignore lint/correctness/useYield: nobody asks for it
  async *streamQuery(): AsyncIterableIterator<never> {
    throw new Error('a store on SQLite does not stream')
  }

  #runOutside(compiled: CompiledQuery): Outcome | Promise<Outcome> {
    const { sql, parameters, query } = compiled
    if (isConditional(compiled)) return this.#writer.write(toBatch(compiled))
    if (isWrite(query)) return this.#writer.write({ sql, parameters })
    return (SelectQueryNode.is(query) && this.#read(sql, parameters)) || this.#runAlone(sql, parameters)
  }

  /** @returns undefined where whoever asks had to wait for a lock of another process: the thread can */
  #read(sql: string, parameters: readonly unknown[]): Outcome | undefined {
    try {
      return this.#reader?.run(sql, parameters)
    } catch (error) {
      if (((error as { errcode?: number }).errcode ?? 0) % 256 === SQLITE_BUSY) return undefined
      throw error
    }
  }

  async #runAlone(sql: string, parameters: readonly unknown[]): Promise<Outcome> {
    const endTurn = await this.#writer.takeTurn()
    try {
      return await (await this.#writer.thread()).run(sql, parameters, 'alone')
    } finally {
      endTurn()
    }
  }
}

async function runInside(transaction: Transaction, sql: string, parameters: readonly unknown[]) {
  const place = transaction.hasBegun ? 'inside' : 'first'
  if (place === 'first' && (sql === 'commit' || sql === 'rollback')) return { rows: [], changes: 0 }
  transaction.hasBegun = true
  return transaction.thread.run(sql, parameters, place)
}

/** What may share a commit with others: a pragma, for one, may not. */
function isWrite(node: RootOperationNode): boolean {
  return InsertQueryNode.is(node) || UpdateQueryNode.is(node) || DeleteQueryNode.is(node)
}

function toBatch({ claim, rest, restChanges }: ConditionalWrite): Batch {
  const plain = ({ sql, parameters }: CompiledQuery) => ({ sql, parameters })
  return { ...plain(claim), rest: rest.map(plain), restChanges }
}
