import { setTimeout as pause } from 'node:timers/promises'
import { Backoff } from '@postern/shared/backoff'
import { PosternError } from '@postern/shared/errors'
import type { Logger } from '@postern/shared/logger'
import type { Kysely } from 'kysely'
import { endLease, keepLease, type Lease, takeLease } from '../store/leases.ts'
import type { Database } from '../store/schema.ts'

/** The edges of one store order one after the other: there is one proof for a name at a time. A turn is a lease, which its
 *  edge keeps while it works; that of an edge which died has run out a minute later. */

/** Aborted when it is this edge's turn no more. */
export interface OrderTurn extends AsyncDisposable {
  readonly signal: AbortSignal
}

/** Resolves when it is this edge's turn. @throws AbortError */
export type TakeOrderTurn = (signal: AbortSignal) => Promise<OrderTurn>

export interface TurnTimings {
  leaseMs: number
  keepEveryMs: number
  firstLookMs: number
  lookMs: number
}

const TIMINGS: TurnTimings = { leaseMs: 60_000, keepEveryMs: 15_000, firstLookMs: 1_000, lookMs: 10_000 }

/** Of an edge whose store nobody else has: always. */
export const takeTurnAlone: TakeOrderTurn = async () => ({
  signal: new AbortController().signal,
  async [Symbol.asyncDispose]() {},
})

export function takeTurnsInStore(
  db: Kysely<Database>,
  parts: { edge: string; clock: () => number; log: Logger; timings?: Partial<TurnTimings> },
): TakeOrderTurn {
  const { edge: holder, clock, log } = parts
  const timings = { ...TIMINGS, ...parts.timings }
  const lease: Lease = { name: 'acme-order', holder }
  const span = () => ({ now: clock(), until: clock() + timings.leaseMs })

  return async (signal) => {
    const backoff = new Backoff(timings.firstLookMs, timings.lookMs)
    for (;;) {
      signal.throwIfAborted()
      const isTaken = await takeLease(db, lease, span()).catch((error: unknown) => {
        log.debug('acme.turn_not_taken', { error }) // that the store is gone is told elsewhere
        return false
      })
      if (isTaken) return new Turn(db, lease, { span, ...timings })
      log.debug('acme.turn_awaited')
      await pause(backoff.next(), undefined, { signal, ref: false })
    }
  }
}

class Turn implements OrderTurn {
  readonly #over = new AbortController()
  readonly #db: Kysely<Database>
  readonly #lease: Lease
  readonly #parts: TurnTimings & { span: () => { now: number; until: number } }
  readonly #timer: NodeJS.Timeout
  /** By `performance.now()`. */
  #lostAt: number

  constructor(
    db: Kysely<Database>,
    lease: Lease,
    parts: TurnTimings & { span: () => { now: number; until: number } },
  ) {
    this.#db = db
    this.#lease = lease
    this.#parts = parts
    this.#lostAt = performance.now() + parts.leaseMs
    this.#timer = setInterval(() => this.#keep(), parts.keepEveryMs).unref()
  }

  get signal(): AbortSignal {
    return this.#over.signal
  }

  async [Symbol.asyncDispose](): Promise<void> {
    clearInterval(this.#timer)
    await endLease(this.#db, this.#lease).catch(() => {}) // it runs out
  }

  /** A store that does not answer takes nothing away before the lease has run out. */
  async #keep(): Promise<void> {
    const since = performance.now()
    const isKept = await keepLease(this.#db, this.#lease, this.#parts.span()).catch(() => undefined)
    if (isKept) this.#lostAt = since + this.#parts.leaseMs
    if (isKept === false || performance.now() >= this.#lostAt) this.#lose()
  }

  #lose(): void {
    clearInterval(this.#timer)
    this.#over.abort(
      new PosternError('STORE_LOST', 'the order was given up: another edge of this store may have its turn', {
        hint: 'it is tried again by itself; look at the store, and at the clocks of the edges',
      }),
    )
  }
}
