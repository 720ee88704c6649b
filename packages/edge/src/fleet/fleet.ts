import { setTimeout as pause } from 'node:timers/promises'
import { Backoff } from '@postern/shared/backoff'
import type { Logger } from '@postern/shared/logger'
import type { ChangeFeed, Listening } from '../store/change-feed.ts'
import { type Change, type Message, parseMessage } from '../store/changes.ts'

/** The edges that share one store. Each hears what the others change, and carries it to its own flows. Refuses to
 *  trust what it has not heard: after every gap all that lives is read again, and an edge that hears nothing for too
 *  long counts as one without its store. */
export interface Fleet extends AsyncDisposable {
  /** Whether changes that others make may be missed now. */
  readonly isDeaf: boolean
  /** Not for so long that what lives here cannot be answered for any more. */
  readonly isTrusted: boolean
  /** How many others are there. */
  readonly others: number
  /** Waits a moment for the others to carry out what this edge has changed until now. */
  carriedOut(): Promise<CarriedOut>
}

export interface CarriedOut {
  /** How many other edges were there. */
  told: number
  /** How many of them said in time that they have carried it out. */
  done: number
}

export interface FleetParts {
  feed: ChangeFeed
  carry: (change: Change) => Promise<void>
  /** Reads whatever lives here again. */
  readEverything: () => Promise<void>
  log: Logger
  timings?: Partial<FleetTimings> | undefined
}

export interface FleetTimings {
  /** Between two words of an edge about itself. */
  everyMs: number
  /** So many words of its own it may miss before its connection is given up, and so many of another before that one
   *  is gone. Counted, not timed: a process that stood still has missed none. */
  patience: number
  /** Deaf for longer is as without a store. */
  boundMs: number
  /** For the others to say that they have carried it out. */
  carryMs: number
}

const TIMINGS: FleetTimings = { everyMs: 1_000, patience: 5, boundMs: 10_000, carryMs: 1_000 }
const FIRST_RETRY_MS = 50
const MAX_RETRY_MS = 1_000

/** The fleet of an edge whose store nobody else has. */
export const ALONE: Fleet = {
  isDeaf: false,
  isTrusted: true,
  others: 0,
  carriedOut: async () => ({ told: 0, done: 0 }),
  async [Symbol.asyncDispose]() {},
}

/** Resolves once this edge hears what the others change. @throws whatever the database answers */
export async function joinFleet(parts: FleetParts): Promise<Fleet> {
  const fleet = new SharedFleet(parts)
  await fleet.join()
  return fleet
}

class SharedFleet implements Fleet {
  readonly #parts: FleetParts
  readonly #timings: FleetTimings
  readonly #stop = new AbortController()
  /** Other edges, with how many of their words this one has missed. */
  readonly #others = new Map<string, number>()
  /** Changes that are being carried out. */
  readonly #carrying = new Set<Promise<void>>()
  /** Questions that wait, each with who has not answered. */
  readonly #asked = new Map<number, { waiting: Set<string>; settle: () => void }>()
  readonly #backoff = new Backoff(FIRST_RETRY_MS, MAX_RETRY_MS)
  #listening: Listening | undefined
  #deafSince: number | undefined = performance.now()
  #missed = 0
  #asks = 0
  #timer: NodeJS.Timeout | undefined

  constructor(parts: FleetParts) {
    this.#parts = parts
    this.#timings = { ...TIMINGS, ...parts.timings }
  }

  get isDeaf(): boolean {
    return this.#deafSince !== undefined
  }

  get isTrusted(): boolean {
    return this.#deafSince === undefined || performance.now() - this.#deafSince < this.#timings.boundMs
  }

  get others(): number {
    return this.#others.size
  }

  async join(): Promise<void> {
    await this.#listen()
    this.#tick()
  }

  async carriedOut(): Promise<CarriedOut> {
    const waiting = new Set(this.#others.keys())
    const told = waiting.size
    if (told === 0) return { told, done: 0 }
    const ask = ++this.#asks
    const { promise, resolve } = Promise.withResolvers<void>()
    this.#asked.set(ask, { waiting, settle: resolve })
    const timer = setTimeout(resolve, this.#timings.carryMs)
    this.#say({ kind: 'ask', ask })
    await promise
    clearTimeout(timer)
    this.#asked.delete(ask)
    return { told, done: told - waiting.size }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort()
    clearTimeout(this.#timer)
    await this.#listening?.say({ kind: 'left' }).catch(() => {})
    this.#listening?.close()
  }

  #tick(): void {
    this.#say({ kind: 'here' })
    for (const [edge, missed] of this.#others) {
      if (missed >= this.#timings.patience) this.#others.delete(edge)
      else this.#others.set(edge, missed + 1)
    }
    if (!this.isDeaf && ++this.#missed > this.#timings.patience) this.#lose('silent')
    this.#timer = setTimeout(() => this.#tick(), this.#timings.everyMs).unref()
  }

  /** What cannot be said is not heard either, and that is noticed. */
  #say(message: Message): void {
    this.#listening?.say(message).catch(() => {})
  }

  /** Listens first and reads then: what is changed in between is heard. */
  async #listen(): Promise<void> {
    let hasEnded = false
    const listening = await this.#parts.feed.listen({
      onPayload: (payload) => this.#hear(payload),
      onEnd: () => {
        hasEnded = true
        if (this.#listening === listening) this.#lose('closed')
      },
    })
    try {
      await this.#parts.readEverything()
      if (hasEnded || this.#stop.signal.aborted) throw new Error('the connection that listens was closed')
    } catch (error) {
      listening.close()
      throw error
    }
    this.#listening = listening
    this.#missed = 0
    this.#deafSince = undefined
  }

  #lose(why: 'closed' | 'silent' | 'not carried out'): void {
    if (this.isDeaf || this.#stop.signal.aborted) return
    this.#deafSince = performance.now()
    this.#listening?.close()
    this.#listening = undefined
    this.#parts.log.error('changes.not_heard', { why })
    void this.#listenAgain(this.#deafSince)
  }

  async #listenAgain(deafSince: number): Promise<void> {
    const { log } = this.#parts
    const { signal } = this.#stop
    while (!signal.aborted) {
      try {
        await this.#listen()
        log.info('changes.heard_again', { deafForMs: Math.round(performance.now() - deafSince) })
        return this.#backoff.reset()
      } catch (error) {
        log.debug('changes.listen_failed', { error })
        await pause(this.#backoff.next(), undefined, { signal, ref: false }).catch(() => {})
      }
    }
  }

  #hear(payload: string): void {
    const heard = parseMessage(payload)
    if (!heard) {
      this.#parts.log.warn('changes.not_understood', { characters: payload.length })
      return this.#carry(() => this.#parts.readEverything())
    }
    const { from, message } = heard
    if (from === this.#parts.feed.edge) {
      this.#missed = 0
      return
    }
    switch (message.kind) {
      case 'here':
        return void this.#others.set(from, 0)
      case 'left':
        return this.#leave(from)
      case 'ask':
        return void this.#answer(from, message.ask)
      case 'done':
        return this.#settle(from, message)
      default:
        return this.#carry(() => this.#parts.carry(message))
    }
  }

  /** At once, whatever else is being carried out. What fails is made good by reading everything again. */
  #carry(carry: () => Promise<void>): void {
    const carried = carry()
      .catch((error: unknown) => {
        this.#parts.log.error('changes.carry_failed', { error })
        this.#lose('not carried out')
      })
      .finally(() => this.#carrying.delete(carried))
    this.#carrying.add(carried)
  }

  async #answer(to: string, ask: number): Promise<void> {
    await Promise.all(this.#carrying)
    if (!this.isDeaf) this.#say({ kind: 'done', to, ask })
  }

  #settle(from: string, { to, ask }: Extract<Message, { kind: 'done' }>): void {
    const asked = to === this.#parts.feed.edge ? this.#asked.get(ask) : undefined
    if (asked?.waiting.delete(from) && asked.waiting.size === 0) asked.settle()
  }

  #leave(edge: string): void {
    this.#others.delete(edge)
    for (const [ask] of this.#asked) this.#settle(edge, { kind: 'done', to: this.#parts.feed.edge, ask })
  }
}
