import type { Worker } from 'node:worker_threads'
import { PosternError } from '@postern/shared/errors'
import { startThread } from '../start-thread.ts'
import type { Outcome } from './sqlite-database.ts'

export interface Statement {
  sql: string
  parameters: readonly unknown[]
}

/** All or none. What follows is carried out only if the first has changed something; the outcome is that of the first. */
export interface Batch extends Statement {
  rest?: readonly Statement[]
  /** How many rows those change. */
  restChanges?: number
}

/** Of a statement: the first of a transaction, a later one, or for itself. */
export type Place = 'first' | 'inside' | 'alone'

export type Question = (Statement & { place: Place }) | { batches: readonly Batch[] } | 'close'

/** What was thrown, as it crosses. */
export interface Failure {
  message: string
  facts: object
}

/** What the thread has carried out, counted where it was. */
export interface Carried extends Outcome {
  /** Statements. */
  count: number
  /** Rows that those after the first have changed. */
  restChanges: number
}

/** One for each batch, else one. */
export type Answer = Result[] | Failure
export type Result = Carried | Failure

export function isFailure(result: Result): result is Failure {
  return 'message' in result
}

export function toError({ message, facts }: Failure): Error {
  return Object.assign(new Error(message), facts)
}

interface Waiting {
  question: Question | 'open'
  asked: PromiseWithResolvers<Result[]>
}

/** A writing connection to a SQLite file in a thread of its own: SQLite blocks while it waits for the disk or for a lock,
 *  and here nobody but those who asked waits with it. Keeps the process alive only while somebody waits. */
export class SqliteThread {
  readonly #worker: Worker
  readonly #exited: Promise<unknown>
  /** Answers come in the order of the questions. */
  readonly #waiting: Waiting[] = []
  #end: Error | undefined

  private constructor(path: string) {
    this.#worker = startThread(new URL('sqlite-worker.ts', import.meta.url), { path })
    this.#exited = new Promise((resolve) => this.#worker.once('exit', resolve))
    this.#worker.on('message', (answer: Answer) => this.#settle(answer))
    this.#worker.on('error', (cause) => this.#fail(new Error('the thread of the store broke', { cause })))
    this.#worker.on('exit', () => this.#fail(new Error('the thread of the store has ended')))
  }

  /** @throws what SQLite says about the file */
  static async open(path: string): Promise<SqliteThread> {
    const thread = new SqliteThread(path)
    await thread.#answerTo('open')
    return thread
  }

  /** It answers no more, and a transaction that ran in it is rolled back. */
  get isOver(): boolean {
    return this.#end !== undefined
  }

  /** @throws what SQLite throws; whether a statement was carried out is unknown when the thread ends meanwhile */
  async run(sql: string, parameters: readonly unknown[], place: Place): Promise<Outcome> {
    const [outcome] = await this.#ask({ sql, parameters, place })
    return outcome as Carried
  }

  /** With one commit. One that fails leaves no trace and does not hinder the others.
   *  @throws what SQLite throws when it cannot begin or commit: then none of them is written */
  writeTogether(batches: readonly Batch[]): Promise<Result[]> {
    return this.#ask({ batches })
  }

  async close(): Promise<void> {
    if (!this.isOver) await this.#ask('close')
    this.#worker.ref()
    await this.#exited
  }

  #ask(question: Question): Promise<Result[]> {
    if (this.#end) return Promise.reject(this.#end)
    this.#worker.postMessage(question)
    return this.#answerTo(question)
  }

  #answerTo(question: Waiting['question']): Promise<Result[]> {
    const asked = Promise.withResolvers<Result[]>()
    this.#waiting.push({ question, asked })
    this.#worker.ref()
    return asked.promise
  }

  #settle(answer: Answer): void {
    const first = this.#waiting[0]
    if (!first || !fits(answer, first.question)) return this.#distrust()
    this.#waiting.shift()
    if (this.#waiting.length === 0) this.#worker.unref()
    if (Array.isArray(answer)) first.asked.resolve(answer)
    else first.asked.reject(toError(answer))
  }

  /** It has done something else than it was told: nothing that it says is believed, and nothing more is asked of it. */
  #distrust(): void {
    this.#fail(new PosternError('RECORD_FAILED', 'the thread of the store has not done what it was told'))
    void this.#worker.terminate()
  }

  #fail(error: Error): void {
    this.#end ??= error
    for (const { asked } of this.#waiting.splice(0)) asked.reject(this.#end)
  }
}

/** Whether it tells of everything that was asked, and of nothing else. */
function fits(answer: Answer, question: Waiting['question']): boolean {
  if (!Array.isArray(answer)) return typeof answer.message === 'string'
  if (typeof question === 'string') return answer.length === 0
  const batches: readonly Batch[] = 'batches' in question ? question.batches : [question]
  return (
    answer.length === batches.length &&
    answer.every((result, index) => isFailure(result) || isWhole(result, batches[index]!))
  )
}

function isWhole({ changes, count, restChanges }: Carried, batch: Batch): boolean {
  const { rest = [], restChanges: expected = 0 } = batch
  return changes > 0 ? count === 1 + rest.length && restChanges === expected : count === 1
}
