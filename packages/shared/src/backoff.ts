/** Waits between attempts: grows by half each time from `firstMs` to `maxMs`, and every wait is drawn from
 *  its upper half or lower, so that a fleet does not come back in lockstep ("full jitter" above a floor). */
export class Backoff {
  readonly #firstMs: number
  readonly #maxMs: number
  readonly #random: () => number
  #currentMs: number

  constructor(firstMs: number, maxMs: number, random: () => number = Math.random) {
    this.#firstMs = firstMs
    this.#maxMs = maxMs
    this.#random = random
    this.#currentMs = firstMs
  }

  /** Milliseconds to wait before the next attempt. */
  next(): number {
    const ceiling = this.#currentMs
    this.#currentMs = Math.min(this.#maxMs, this.#currentMs * 1.5)
    return Math.round(ceiling * (0.3 + 0.7 * this.#random()))
  }

  /** Call after a success that lasted. */
  reset(): void {
    this.#currentMs = this.#firstMs
  }
}
