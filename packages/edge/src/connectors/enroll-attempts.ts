import { PosternError } from '@postern/shared/errors'
import { networkOf } from '../limits/network.ts'

export interface AttemptLimits {
  refusedPerAddress: number
  /** Addresses that are remembered; the oldest makes room. */
  addresses: number
  windowMs: number
}

export const ENROLL_LIMITS: AttemptLimits = {
  refusedPerAddress: 20,
  addresses: 10_000,
  windowMs: 60_000,
}

/** Counts refused enroll tokens per address. Nobody guesses 256 bits; this bounds what trying costs the edge. There is
 *  no bound over all addresses: with one, a stranger could keep everybody's servers out. Every try is counted before it
 *  is looked at, so that many at once do not slip through, and a good one is given back. */
export class EnrollAttempts {
  readonly #limits: AttemptLimits
  readonly #tries = new Map<string, number>()
  #windowEnd = 0

  constructor(limits: AttemptLimits = ENROLL_LIMITS) {
    this.#limits = limits
  }

  /** @returns to be called when the token was right
   *  @throws RATE_LIMITED */
  begin(address: string, now: number): () => void {
    this.#forgetOld(now)
    const network = networkOf(address)
    if ((this.#tries.get(network) ?? 0) >= this.#limits.refusedPerAddress) {
      throw new PosternError('RATE_LIMITED', 'too many enroll tokens from this address were refused')
    }
    this.#count(network, 1)
    const window = this.#windowEnd
    return () => {
      if (window === this.#windowEnd) this.#count(network, -1)
    }
  }

  #count(network: string, by: number): void {
    const tries = (this.#tries.get(network) ?? 0) + by
    if (tries > 0) this.#tries.set(network, tries)
    else this.#tries.delete(network)
    if (this.#tries.size > this.#limits.addresses) this.#tries.delete(this.#tries.keys().next().value!)
  }

  #forgetOld(now: number): void {
    if (now < this.#windowEnd) return
    this.#windowEnd = now + this.#limits.windowMs
    this.#tries.clear()
  }
}
