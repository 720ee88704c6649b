import { PosternError } from '@postern/shared/errors'
import type { Logger } from '@postern/shared/logger'

/** Notices that the store does not take writes any more, and that it does again. What cannot be read or recorded must
 *  not happen, so an edge without its store takes nothing new; what runs was decided while it was there. */
export interface StoreWatch extends Disposable {
  readonly isLost: boolean
}

export interface StoreWatchParts {
  /** Writes something, and fails or takes its time when the store is gone. */
  probe: () => Promise<boolean>
  /** `refuse_all` ends live flows at once. */
  policy: 'refuse_new' | 'refuse_all'
  /** How long live flows stay under `refuse_new`. */
  graceMs: number
  /** Ends every live flow. @returns how many */
  endFlows: (reason: PosternError) => number
  log: Logger
  timings?: Partial<StoreWatchTimings>
}

export interface StoreWatchTimings {
  everyMs: number
  /** A probe that takes longer has failed. On a busy machine a write may take seconds. */
  patienceMs: number
}

const TIMINGS: StoreWatchTimings = { everyMs: 1_000, patienceMs: 10_000 }
/** One connection that was closed from the other side is no loss. */
const FAILURES = 2

export function watchStore({ probe, policy, graceMs, endFlows, log, timings }: StoreWatchParts): StoreWatch {
  const { everyMs, patienceMs } = { ...TIMINGS, ...timings }
  let lostAt: number | undefined
  let failures = 0
  let grace: NodeJS.Timeout | undefined
  let next: NodeJS.Timeout | undefined
  let isOver = false

  function lose(): void {
    lostAt = performance.now()
    log.error('store.lost', { policy, graceMs })
    const end = () => log.error('store.flows_ended', { flows: endFlows(storeLost()) })
    if (policy === 'refuse_all') end()
    else grace = setTimeout(end, graceMs).unref()
  }

  function recover(): void {
    log.info('store.recovered', { lostForMs: Math.round(performance.now() - lostAt!) })
    lostAt = undefined
    clearTimeout(grace)
  }

  async function look(): Promise<void> {
    const isGood = await answersWithin(probe(), patienceMs)
    if (isOver) return
    failures = isGood ? 0 : failures + 1
    if (isGood && lostAt !== undefined) recover()
    if (failures >= FAILURES && lostAt === undefined) lose()
    schedule()
  }

  function schedule(): void {
    next = setTimeout(() => void look(), everyMs).unref()
  }

  schedule()
  return {
    get isLost() {
      return lostAt !== undefined
    },
    [Symbol.dispose]() {
      isOver = true
      clearTimeout(next)
      clearTimeout(grace)
    },
  }
}

/** What people hear meanwhile. */
export function storeLost(): PosternError {
  return new PosternError('STORE_LOST', 'the edge cannot reach its store, and decides nothing without it')
}

/** `false` also for a rejection. */
async function answersWithin(answer: Promise<boolean>, ms: number): Promise<boolean> {
  const late = Promise.withResolvers<boolean>()
  const timer = setTimeout(() => late.resolve(false), ms)
  return Promise.race([answer.catch(() => false), late.promise]).finally(() => clearTimeout(timer))
}
