/** The other side of `sqlite-thread.ts`: one connection, one question after the other, in their order. */
import { parentPort, workerData } from 'node:worker_threads'
import { type Outcome, SqliteDatabase } from './sqlite-database.ts'
import type { Answer, Batch, Carried, Failure, Place, Question, Result, Statement } from './sqlite-thread.ts'

const port = parentPort!
const database = open()

port.on('message', (question: Question) => {
  if (question === 'close') {
    tell(close)
    port.close()
  } else if ('batches' in question) tell(() => writeTogether(question.batches))
  else tell(() => [carryOut(question)])
})

function open(): SqliteDatabase | undefined {
  try {
    const opened = SqliteDatabase.forWriting((workerData as { path: string }).path)
    port.postMessage([] satisfies Answer)
    return opened
  } catch (error) {
    port.postMessage(toFailure(error) satisfies Answer)
    port.close()
    return undefined
  }
}

function close(): Result[] {
  database?.close()
  return []
}

/** What is meant for a transaction never runs outside of it: not when it could not begin, and not when SQLite has rolled
 *  it back, as it does on a full disk. */
function carryOut({ sql, parameters, place }: Statement & { place: Place }): Carried {
  if (place === 'first') run('begin immediate')
  if (place === 'inside' && !database!.isTransaction) {
    if (sql === 'rollback') return { ...NOTHING, count: 1 }
    throw new Error('the transaction is over')
  }
  return carry([{ sql, parameters }])
}

function writeTogether(batches: readonly Batch[]): Result[] {
  if (batches.length === 1 && !batches[0]!.rest) return [carry(batches)]
  run('begin immediate')
  try {
    const results = batches.map(writeBatch)
    run('commit')
    return results
  } catch (error) {
    if (database!.isTransaction) run('rollback')
    throw error
  }
}

function writeBatch({ sql, parameters, rest = [] }: Batch): Result {
  run('savepoint batch')
  try {
    const carried = carry([{ sql, parameters }, ...rest])
    run('release batch')
    return carried
  } catch (error) {
    if (!database!.isTransaction) throw error // SQLite has rolled back the others too
    run('rollback to batch')
    run('release batch')
    return toFailure(error)
  }
}

const NOTHING: Carried = { rows: [], changes: 0, count: 0, restChanges: 0 }

/** The later ones only if the first has changed something. */
function carry(statements: readonly Statement[]): Carried {
  const carried = { ...NOTHING }
  for (const { sql, parameters } of statements) {
    const outcome = run(sql, parameters)
    carried.count += 1
    if (carried.count === 1) Object.assign(carried, outcome)
    else carried.restChanges += Number(outcome.changes)
    if (carried.changes === 0) break
  }
  return carried
}

function run(sql: string, parameters: readonly unknown[] = []): Outcome {
  return database!.run(sql, parameters)
}

function tell(work: () => Result[]): void {
  try {
    port.postMessage(work() satisfies Answer)
  } catch (error) {
    port.postMessage(toFailure(error) satisfies Answer)
  }
}

/** A copy of an error has its message only, and whoever gets it decides by its numbers. */
function toFailure(error: unknown): Failure {
  const { message, code, errcode, errstr } = error as Error & Record<'code' | 'errcode' | 'errstr', unknown>
  return { message, facts: { code, errcode, errstr } }
}
