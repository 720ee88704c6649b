/** When to look at something again: one timer for all of it. Times are epoch milliseconds of the given clock, so a
 *  clock that is set, or a machine that slept, is noticed at the next look; what is due is found without looking at
 *  the rest unless something is. */
export class Deadlines<T> implements Disposable {
  readonly #moments = new Map<T, number>()
  readonly #clock: () => number
  readonly #onDue: (due: T[]) => void
  #soonest = Number.POSITIVE_INFINITY
  #timer: NodeJS.Timeout | undefined

  constructor(clock: () => number, onDue: (due: T[]) => void) {
    this.#clock = clock
    this.#onDue = onDue
  }

  get size(): number {
    return this.#moments.size
  }

  /** In place of the moment it had. */
  set(item: T, at: number): void {
    this.#moments.set(item, at)
    this.#soonest = Math.min(this.#soonest, at)
    this.#timer ??= setInterval(() => this.check(), LOOK_EVERY_MS).unref()
  }

  delete(item: T): void {
    this.#moments.delete(item)
  }

  /** Hands out what is due now, each once. */
  check(): void {
    const now = this.#clock()
    if (now < this.#soonest) return
    const due: T[] = []
    this.#soonest = Number.POSITIVE_INFINITY
    for (const [item, at] of this.#moments) {
      if (at <= now) due.push(item)
      else this.#soonest = Math.min(this.#soonest, at)
    }
    for (const item of due) this.#moments.delete(item)
    if (this.#moments.size === 0) this[Symbol.dispose]()
    if (due.length > 0) this.#onDue(due)
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer)
    this.#timer = undefined
  }
}

const LOOK_EVERY_MS = 100
