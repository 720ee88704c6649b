import { PosternError } from '@postern/shared/errors'
import { networkOf } from '../limits/network.ts'

/** Logins that were begun and not finished, counted so that nobody can fill the tables with them. In memory:
 *  after a restart the counting starts anew, which costs an attacker nothing and an honest person nothing. */
export class PendingLogins {
  readonly #limits: PendingLimits
  /** In the order of their beginning, so that the oldest come first. */
  readonly #entries = new Map<string, { address: string; at: number; attempts: number }>()
  readonly #perAddress = new Map<string, number>()

  constructor(limits: PendingLimits) {
    this.#limits = limits
  }

  /** Before anything is written for a new login.
   *  @throws RATE_LIMITED */
  admit(address: string, now: number): void {
    this.#forgetOld(now)
    const fromHere = this.#perAddress.get(networkOf(address)) ?? 0
    if (fromHere >= this.#limits.perAddress || this.#entries.size >= this.#limits.total) {
      throw new PosternError('RATE_LIMITED', 'too many sign-ins are waiting to be finished', {
        hint: 'finish or close the open sign-in pages, wait a few minutes and try again',
      })
    }
  }

  add(uid: string, address: string, now: number): void {
    const network = networkOf(address)
    this.#entries.set(uid, { address: network, at: now, attempts: 0 })
    this.#perAddress.set(network, (this.#perAddress.get(network) ?? 0) + 1)
  }

  /** Each time the person is sent to the provider, which writes a row.
   *  @throws RATE_LIMITED */
  attempt(uid: string, address: string, now: number): void {
    if (!this.#entries.has(uid)) {
      this.admit(address, now)
      this.add(uid, address, now)
    }
    const entry = this.#entries.get(uid)!
    entry.attempts += 1
    if (entry.attempts > this.#limits.attempts) {
      throw new PosternError('RATE_LIMITED', 'this sign-in was tried too often', {
        hint: 'start again: postern login --edge https://HOST',
      })
    }
  }

  remove(uid: string): void {
    const entry = this.#entries.get(uid)
    if (!entry) return
    this.#entries.delete(uid)
    const left = (this.#perAddress.get(entry.address) ?? 1) - 1
    if (left > 0) this.#perAddress.set(entry.address, left)
    else this.#perAddress.delete(entry.address)
  }

  #forgetOld(now: number): void {
    for (const [uid, entry] of this.#entries) {
      if (entry.at + this.#limits.lifetimeMs > now) return
      this.remove(uid)
    }
  }
}

export interface PendingLimits {
  perAddress: number
  total: number
  /** Trips to the provider within one login: reloads and other accounts. */
  attempts: number
  /** After this a login has expired and counts no longer. */
  lifetimeMs: number
}
