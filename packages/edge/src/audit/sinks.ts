import { createHash } from 'node:crypto'
import { setTimeout as pause } from 'node:timers/promises'
import { formatExportLine } from '@postern/shared/audit/record'
import { Backoff } from '@postern/shared/backoff'
import type { Logger } from '@postern/shared/logger'
import type { Kysely } from 'kysely'
import type { AuditSink } from '../config/config.ts'
import { describeSink } from '../config/config.ts'
import { findHead, readAuditChain } from '../store/audit-events.ts'
import { readSinkPosition, saveSinkPosition, startSink } from '../store/audit-sinks.ts'
import type { Database } from '../store/schema.ts'
import { sendBatch } from './syslog.ts'
import { postBatch } from './webhook.ts'

/** Hands every record of this edge's chain to places outside, at least once and in order. Each sink has its own place in
 *  the chain, which it moves on when a batch was accepted; so nothing of this is in the way of a flow, and a receiver
 *  that was away gets what it missed. Refuses to skip: a record that is not accepted is sent again and again. */

export interface Batch {
  /** The same for the same records: `CHAIN:FIRST-LAST`. */
  name: string
  lines: { line: string; at: number; type: string }[]
}

const RECORDS_PER_BATCH = 500
/** A sink that was told of nothing looks by itself: another process may have the same chain. */
const LOOK_EVERY_MS = 60_000

export interface SinkTimings {
  /** An attempt that takes longer has failed. */
  timeoutMs: number
  firstRetryMs: number
  maxRetryMs: number
}
const TIMINGS: SinkTimings = { timeoutMs: 30_000, firstRetryMs: 1_000, maxRetryMs: 300_000 }

export interface SinkParts {
  db: Kysely<Database>
  /** Id of this edge's chain. */
  chain: string
  log: Logger
  clock: () => number
  timings?: SinkTimings | undefined
}

export class Sinks implements AsyncDisposable {
  readonly #deliveries: Delivery[]
  readonly #parts: SinkParts
  #head = 0

  constructor(sinks: readonly AuditSink[], parts: SinkParts) {
    this.#parts = parts
    this.#deliveries = sinks.map((sink) => new Delivery(sink, parts))
  }

  /** Notes where each new one begins: call it before anything is written. */
  async start(): Promise<void> {
    this.#head = (await findHead(this.#parts.db, this.#parts.chain))?.position ?? 0
    for (const delivery of this.#deliveries) await delivery.start(this.#head)
  }

  /** Something was written, up to this position. */
  wake(head: number): void {
    this.#head = head
    for (const delivery of this.#deliveries) delivery.wake()
  }

  /** How many records each of them has not accepted yet. */
  lags(): number[] {
    return this.#deliveries.map(({ position }) => Math.max(0, this.#head - position))
  }

  /** What is not delivered now is after the next start. */
  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.#deliveries.map((delivery) => delivery.stop()))
  }
}

class Delivery {
  /** Accepted, with all before it. */
  position = 0
  readonly #sink: AuditSink
  readonly #parts: SinkParts
  readonly #timings: SinkTimings
  readonly #name: string
  readonly #id: string
  readonly #stop = new AbortController()
  #nudge = Promise.withResolvers<void>()
  #running: Promise<void> | undefined

  constructor(sink: AuditSink, parts: SinkParts) {
    this.#sink = sink
    this.#parts = parts
    this.#timings = parts.timings ?? TIMINGS
    this.#name = describeSink(sink)
    this.#id = createHash('sha256').update(this.#name).digest('hex')
  }

  /** @param head where a sink that is new begins */
  async start(head: number): Promise<void> {
    const { db, chain } = this.#parts
    await startSink(db, { id: this.#id, chain }, head)
    this.position = await readSinkPosition(db, { id: this.#id, chain })
    this.#running = this.#run()
  }

  wake(): void {
    this.#nudge.resolve()
  }

  async stop(): Promise<void> {
    this.#stop.abort()
    await this.#running
  }

  async #run(): Promise<void> {
    const { log } = this.#parts
    const backoff = new Backoff(this.#timings.firstRetryMs, this.#timings.maxRetryMs)
    let failures = 0
    while (!this.#stop.signal.aborted) {
      try {
        this.#nudge = Promise.withResolvers()
        const delivered = await this.#deliverNext()
        if (failures > 0 && delivered) log.info('audit.sink_recovered', { sink: this.#name, failures })
        if (delivered) failures = 0
        backoff.reset()
        if (!delivered) await this.#wait(LOOK_EVERY_MS, this.#nudge.promise)
      } catch (error) {
        if (this.#stop.signal.aborted) return
        failures += 1
        if (failures === 1) log.warn('audit.sink_failed', { sink: this.#name, error })
        await this.#wait(backoff.next())
      }
    }
  }

  /** @returns whether there was anything */
  async #deliverNext(): Promise<boolean> {
    const { db, chain, clock } = this.#parts
    const records = await readAuditChain(db, { chain, after: this.position, limit: RECORDS_PER_BATCH })
    const linked = records.filter((record) => record.chain !== undefined)
    const [first, last] = [linked[0], linked.at(-1)]
    if (!first || !last) return false
    const lines = linked.map((record) => ({
      line: formatExportLine(record),
      at: record.at,
      type: record.type,
    }))
    const batch = { name: `${chain}:${first.position}-${last.position}`, lines }
    const signal = AbortSignal.any([this.#stop.signal, AbortSignal.timeout(this.#timings.timeoutMs)])
    if (this.#sink.kind === 'webhook') await postBatch(this.#sink, batch, { now: clock(), signal })
    else await sendBatch(this.#sink.address, batch, signal)
    // a crash here sends the batch again: at least once, not at most
    await saveSinkPosition(db, { id: this.#id, chain }, last.position)
    this.position = last.position
    return true
  }

  async #wait(ms: number, sooner?: Promise<void>): Promise<void> {
    const over = new AbortController()
    const signal = AbortSignal.any([this.#stop.signal, over.signal])
    const waited = pause(ms, undefined, { signal, ref: false }).catch(() => {})
    await Promise.race([waited, ...(sooner ? [sooner] : [])])
    over.abort()
  }
}
