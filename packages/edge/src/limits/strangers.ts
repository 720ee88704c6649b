/** What one address may do of which nobody has yet shown who they are. Only what fails is counted, and an address from
 *  which somebody has shown who they are is not held to it for a day: behind it may be an office. What it may have at
 *  once is bounded even then, by whoever holds the connections. Counted in this process, like the rates. */
import { ERRORS, PosternError } from '@postern/shared/errors'
import { RateLimiterMemory } from 'rate-limiter-flexible'
import type { AddressLimited } from '../audit/event.ts'
import type { EdgeLimits } from '../config/config.ts'
import { networkOf } from './network.ts'
import { rateLimited } from './rate.ts'

/** What is refused with words has its own event. */
export type AddressLimit = AddressLimited['limit'] | 'failed_logins'

/** Hears each time that an address was held to a limit. */
export type OnLimited = (limit: AddressLimit, address: string) => void

export interface StrangersOptions {
  limits: Pick<EdgeLimits, 'failedHandshakesPerMinute' | 'failedLoginsPerMinute'>
  onLimited: OnLimited
  /** Addresses that are remembered, of each kind; the oldest makes room. */
  maxAddresses?: number
}

const WINDOW_SECONDS = 60
const KNOWN_MS = 24 * 3_600_000
/** Some 10 MB. Whoever has more addresses than that is not stopped by counting each of them. */
const MAX_ADDRESSES = 20_000

export class Strangers {
  readonly #handshakes: Failures
  readonly #logins: Failures
  readonly #known: Newest
  readonly #onLimited: OnLimited

  constructor({ limits, onLimited, maxAddresses = MAX_ADDRESSES }: StrangersOptions) {
    this.#handshakes = new Failures(limits.failedHandshakesPerMinute, maxAddresses)
    this.#logins = new Failures(limits.failedLoginsPerMinute, maxAddresses)
    this.#known = new Newest(maxAddresses)
    this.#onLimited = onLimited
  }

  /** Somebody at this address has shown who they are. */
  welcome(address: string): void {
    this.#known.set(networkOf(address), Date.now() + KNOWN_MS)
  }

  /** Runs what finds out who holds a certificate. */
  async identifying<T>(address: string, identify: () => Promise<T>): Promise<T> {
    try {
      const identified = await identify()
      this.welcome(address)
      return identified
    } catch (error) {
      if (error instanceof PosternError) this.countHandshake(address)
      throw error
    }
  }

  /** One that failed. */
  countHandshake(address: string): void {
    this.#handshakes.count(networkOf(address))
  }

  /** Whether a connection of this address may begin its handshake. */
  admitHandshake(address: string): boolean {
    if (this.#waitMs(this.#handshakes, address) === 0) return true
    this.#onLimited('failed_handshakes', address)
    return false
  }

  /** One that failed: a sign-in, a code, a token. */
  countLogin(address: string): void {
    this.#logins.count(networkOf(address))
  }

  /** @throws RATE_LIMITED with the seconds to wait */
  admitLogin(address: string): void {
    const waitMs = this.#waitMs(this.#logins, address)
    if (waitMs === 0) return
    this.#onLimited('failed_logins', address)
    throw rateLimited('too many sign-ins and tokens from this address were refused', waitMs)
  }

  /** Counts what a stranger is about to be told, if it is their fault.
   *  @returns what to tell them instead, when it has become too much */
  judge(error: unknown, address: string): unknown {
    if (!isTheirFault(error)) return error
    this.countLogin(address)
    try {
      this.admitLogin(address)
      return error
    } catch (limited) {
      return limited
    }
  }

  #waitMs(failures: Failures, address: string): number {
    const network = networkOf(address)
    const waitMs = failures.waitMs(network)
    return waitMs > 0 && (this.#known.get(network) ?? 0) > Date.now() ? 0 : waitMs
  }
}

/** Every first request lacks a nonce: that is how the client gets one. */
function isTheirFault(error: unknown): boolean {
  if (!(error instanceof PosternError) || error.details?.error === 'use_dpop_nonce') return false
  const status = ERRORS[error.code].http
  return status >= 400 && status < 500 && status !== 429
}

/** Failures of each network in a minute. */
class Failures {
  readonly #limiter: RateLimiterMemory
  readonly #perMinute: number
  /** Until when it has to wait, of those who failed lately. */
  readonly #waits: Newest

  constructor(perMinute: number, maxNetworks: number) {
    this.#perMinute = perMinute
    this.#limiter = new RateLimiterMemory({ points: perMinute, duration: WINDOW_SECONDS })
    this.#waits = new Newest(maxNetworks, (network) => void this.#limiter.delete(network))
  }

  count(network: string): void {
    this.#waits.set(network, this.#waits.get(network) ?? 0)
    void this.#limiter.penalty(network).then(({ consumedPoints, msBeforeNext }) => {
      if (consumedPoints >= this.#perMinute) this.#waits.set(network, Date.now() + msBeforeNext)
    })
  }

  waitMs(network: string): number {
    return Math.max(0, (this.#waits.get(network) ?? 0) - Date.now())
  }
}

/** A moment for each network. So many and no more: strangers choose their addresses. */
class Newest {
  readonly #moments = new Map<string, number>()
  readonly #max: number
  readonly #onForgotten: ((network: string) => void) | undefined

  constructor(max: number, onForgotten?: (network: string) => void) {
    this.#max = max
    this.#onForgotten = onForgotten
  }

  get(network: string): number | undefined {
    return this.#moments.get(network)
  }

  set(network: string, moment: number): void {
    this.#moments.delete(network)
    this.#moments.set(network, moment)
    if (this.#moments.size <= this.#max) return
    const [oldest] = this.#moments.keys()
    this.#moments.delete(oldest!)
    this.#onForgotten?.(oldest!)
  }
}
