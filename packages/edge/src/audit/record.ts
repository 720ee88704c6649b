import { type Checkpoint, findCheckpoint } from '@postern/shared/audit/checkpoint'
import { PosternError } from '@postern/shared/errors'
import type { Kysely } from 'kysely'
import {
  type AuditChain,
  type AuditRow,
  appendAuditEvents,
  type ChainHead,
  isConstraint,
  type WrittenTogether,
} from '../store/audit-events.ts'
import type { Database } from '../store/schema.ts'
import { isStrangersRefusal, StrangerCounts } from './count-strangers.ts'
import type { AuditEvent } from './event.ts'
import { toRow } from './to-row.ts'

/** The audit log. What it says has happened is on disk; what it cannot write must not happen, so whoever records
 *  waits, and lets a rejection stop what they were about to do. It is not logging: no levels, no free text. */
export interface AuditLog extends AsyncDisposable {
  /** Resolves once the event is durable. A stranger's refusal (see `isStrangersRefusal`) is only
   *  counted and resolves at once.
   *  @param row is on disk with the event, or neither is
   *  @throws RECORD_FAILED the store failed, too many events wait for it, or the log is closed */
  record(event: AuditEvent, row?: WrittenTogether): Promise<void>
  /** Writes what waits, and the counts. Afterwards nothing is recorded any more.
   *  @throws RECORD_FAILED */
  close(): Promise<void>
}

interface Waiting {
  event: AuditRow
  row: WrittenTogether | undefined
  settle: { resolve: () => void; reject: (error: unknown) => void }
}

const COUNT_EVERY_MS = 60_000
/** Some 10 MB. A store that is that far behind will not catch up with what comes in. */
const MAX_WAITING = 10_000

export interface AuditLogOptions {
  chain: AuditChain
  /** Epoch milliseconds. */
  clock?: () => number
  maxWaiting?: number
  /** Hears of every commit. */
  onAppended?: (head: ChainHead) => void
  /** Hears of a checkpoint once it is on disk: one that was told and then not kept would accuse the log later. */
  onCheckpoint?: (checkpoint: Checkpoint) => void
}

/** `waiting` is how many events are not on disk yet. */
export function openAuditLog(
  db: Kysely<Database>,
  options: AuditLogOptions,
): AuditLog & { readonly waiting: number } {
  return new GroupedAuditLog(db, options)
}

/** Group commit: a commit costs one flush of the disk however many events it holds, so the events of one turn, and
 *  those that come in while the disk is busy, share one. */
class GroupedAuditLog implements AuditLog {
  readonly #db: Kysely<Database>
  readonly #clock: () => number
  readonly #maxWaiting: number
  readonly #chain: AuditChain
  readonly #options: AuditLogOptions
  readonly #strangers = new StrangerCounts()
  readonly #timer: NodeJS.Timeout
  #waiting: Waiting[] = []
  /** Of those, the ones whose commit is under way. */
  #committing = 0
  #writing: Promise<void> | undefined
  /** As of the last commit; undefined before the first. */
  #head: ChainHead | undefined
  /** A checkpoint has to come last. */
  #mustSign = false
  #isClosed = false

  constructor(db: Kysely<Database>, options: AuditLogOptions) {
    const { chain, clock = Date.now, maxWaiting } = options
    this.#db = db
    this.#options = options
    this.#chain = chain
    this.#clock = clock
    this.#maxWaiting = maxWaiting ?? MAX_WAITING
    this.#timer = setInterval(() => this.#tick(), COUNT_EVERY_MS)
    this.#timer.unref()
  }

  get waiting(): number {
    return this.#waiting.length + this.#committing
  }

  async record(event: AuditEvent, row?: WrittenTogether): Promise<void> {
    if (this.#isClosed) throw new PosternError('RECORD_FAILED', 'the audit log is closed')
    if (isStrangersRefusal(event)) return this.#strangers.add(event, this.#clock())
    return this.#write(event, row)
  }

  async close(): Promise<void> {
    if (this.#isClosed) return this.#writing
    this.#isClosed = true
    clearInterval(this.#timer)
    await Promise.all([this.#recordCounts(), this.#writing])
    await this.#sign()
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  #tick(): void {
    this.#recordCounts(this.#clock()).catch(() => {})
    // what came in last would else wait for the next event to be signed
    if (this.#head && this.#chain.checkpoint(this.#head, { mustSign: false })) void this.#sign()
  }

  /** Never rejects: a tail that is not signed today is signed with what comes next. */
  async #sign(): Promise<void> {
    if (!this.#head || this.#head.position === this.#head.checkpointPosition) return
    this.#mustSign = true
    this.#writing ??= this.#writeAll()
    await this.#writing
  }

  async #recordCounts(now?: number): Promise<void> {
    const counts = this.#strangers.take(now)
    const results = await Promise.allSettled(counts.map((event) => this.#write(event)))
    this.#strangers.restore(counts.filter((_, index) => results[index]!.status === 'rejected'))
    const failed = results.find((result) => result.status === 'rejected')
    if (failed) throw failed.reason
  }

  #write(event: AuditEvent, row?: WrittenTogether): Promise<void> {
    if (this.#waiting.length >= this.#maxWaiting) {
      return Promise.reject(
        new PosternError('RECORD_FAILED', `${this.#waiting.length} events wait to be recorded`),
      )
    }
    const toWrite = { event: toRow(event, this.#clock()), row }
    const written = new Promise<void>((resolve, reject) => {
      this.#waiting.push({ ...toWrite, settle: { resolve, reject } })
    })
    this.#writing ??= this.#writeAll()
    return written
  }

  /** Runs until nothing waits. Never rejects: each event hears of its own commit. */
  async #writeAll(): Promise<void> {
    await new Promise(setImmediate) // lets the events of this turn join
    while (this.#waiting.length > 0 || this.#mustSign) {
      const group = this.#waiting
      const mustSign = this.#mustSign
      this.#waiting = []
      this.#mustSign = false
      this.#committing = group.length
      await this.#writeGroup(group, mustSign)
    }
    this.#committing = 0
    this.#writing = undefined
  }

  async #writeGroup(group: readonly Waiting[], mustSign: boolean): Promise<void> {
    try {
      await this.#append(group, mustSign)
      for (const { settle } of group) settle.resolve()
    } catch (cause) {
      const hasRows = group.some(({ row }) => row !== undefined)
      if (group.length > 1 && hasRows && isConstraint(cause)) return this.#writeApart(group, mustSign)
      const error = new PosternError('RECORD_FAILED', 'the audit log cannot be written', { cause })
      for (const { settle } of group) settle.reject(error)
    }
  }

  /** A row that the store turns away takes its own event along and no other. */
  async #writeApart(group: readonly Waiting[], mustSign: boolean): Promise<void> {
    const withoutRow = group.filter(({ row }) => !row)
    if (withoutRow.length > 0) await this.#writeGroup(withoutRow, mustSign)
    for (const one of group.filter(({ row }) => row)) await this.#writeGroup([one], mustSign)
  }

  async #append(group: readonly Waiting[], mustSign: boolean): Promise<void> {
    const events = group.map(({ event }) => event)
    const { head, checkpoint } = await appendAuditEvents(this.#db, this.#chain, events, {
      mustSign,
      after: this.#head,
      together: group.flatMap(({ row }) => row ?? []),
    })
    this.#head = head
    this.#options.onAppended?.(head)
    if (checkpoint) this.#options.onCheckpoint?.(findCheckpoint(JSON.parse(checkpoint.event))!)
  }
}
