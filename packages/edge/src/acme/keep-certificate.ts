import { createHash, X509Certificate } from 'node:crypto'
import { setTimeout as pause } from 'node:timers/promises'
import { PosternError, toPosternError } from '@postern/shared/errors'
import type { AcmeConfig } from '../config/config.ts'
import type { ServerIdentity } from '../flow/rooms.ts'
import { openAccount, signInAccount } from './account.ts'
import type { ChallengeSolver } from './challenges.ts'
import { AcmeClient } from './client.ts'
import { MAX_RETRY_AFTER_MS } from './messages.ts'
import { orderCertificate } from './order.ts'
import type { OrderTurn, TakeOrderTurn } from './order-turns.ts'
import type { AcmeState, KeptCertificate } from './state.ts'

/** Sees to it that there is always a certificate: orders the first, and the next when a third of its life is left. What
 *  fails is tried again ever more rarely, also over restarts, and never sooner than the server asks. */

/** An order that takes longer has failed. */
const ORDER_TIMEOUT_MS = 15 * 60_000
const MAX_RETRY_MS = 6 * 3_600_000
const RETRY_GROWTH = 2.5
const LOOK_EVERY_MS = 3_600_000

export interface KeeperParts {
  state: AcmeState
  solver: ChallengeSolver
  takeTurn: TakeOrderTurn
  clock: () => number
  random?: () => number
  onCertificate: (identity: ServerIdentity) => void
  /** The next attempt: epoch milliseconds. */
  onFailed: (error: PosternError, nextAttemptAt: number) => void
}

export class CertificateKeeper implements AsyncDisposable {
  readonly #config: AcmeConfig
  readonly #parts: KeeperParts
  readonly #settings: string
  readonly #random: () => number
  readonly #stop = new AbortController()
  /** When the next one is to be ordered, as far as nothing speaks against it. */
  #dueAt = 0
  #notBefore = 0
  #failures = 0
  #running: Promise<void> | undefined

  constructor(config: AcmeConfig, parts: KeeperParts) {
    this.#config = config
    this.#parts = parts
    this.#settings = digestOf(config)
    this.#random = parts.random ?? Math.random
  }

  /** When the next order begins, epoch milliseconds. */
  get nextAttemptAt(): number {
    return Math.max(this.#dueAt, this.#notBefore)
  }

  /** Reads what was kept.
   *  @returns the certificate of before, also one that has expired
   *  @throws STATE_INVALID */
  async open(): Promise<ServerIdentity | undefined> {
    const { state } = this.#parts
    await openAccount(state, this.#config.directory) // a key that cannot be read shows now, not in two months
    const attempts = await state.readAttempts()
    if (attempts?.settings === this.#settings) {
      this.#failures = attempts.failures
      // noted while the clock was wrong, it could be years
      this.#notBefore = Math.min(attempts.notBefore, this.#parts.clock() + MAX_RETRY_AFTER_MS)
    }
    const kept = await state.readCertificate()
    if (kept) this.#dueAt = this.#isWanted(kept) ? this.#renewAt(kept.cert) : 0
    return kept && { cert: kept.cert, key: kept.key }
  }

  /** Begins: call it when the server can reach what it looks for. */
  start(): void {
    this.#running ??= this.#run()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort()
    await this.#running
  }

  async #run(): Promise<void> {
    const { signal } = this.#stop
    while (!signal.aborted) {
      const waitMs = this.nextAttemptAt - this.#parts.clock()
      if (waitMs > 0) {
        // in steps: the clock may be set, and a timer cannot run for a month
        await pause(Math.min(waitMs, LOOK_EVERY_MS), undefined, { signal, ref: false }).catch(() => {})
        continue
      }
      const turn = await this.#parts.takeTurn(signal).catch(() => undefined) // it is asked to stop
      if (turn) await this.#attempt(turn)
    }
  }

  async #attempt(myTurn: OrderTurn): Promise<void> {
    await using turn = myTurn
    const timeout = AbortSignal.timeout(ORDER_TIMEOUT_MS)
    const before = this.#failures
    try {
      await this.#countAttempt()
      const identity = await this.#order(AbortSignal.any([this.#stop.signal, timeout, turn.signal]))
      this.#failures = 0
      this.#dueAt = this.#renewAt(identity.cert)
      this.#notBefore = this.#parts.clock() + this.#config.firstRetryMs // whatever a server certifies
      this.#parts.onCertificate(identity)
    } catch (cause) {
      if (this.#stop.signal.aborted) return this.#forgetAttempt(before)
      const late = new PosternError('ACME_UNREACHABLE', 'the ACME server took more than 15 minutes', {
        cause,
      })
      const known = turn.signal.aborted ? turn.signal.reason : timeout.aborted ? late : cause
      await this.#fail(toPosternError(known, 'INTERNAL', 'the order failed'))
    }
  }

  /** On the disk before anybody is asked: an edge that is killed and started again in a circle waits ever longer, too, and
   *  one whose disk is full asks for nothing that it could not keep. */
  async #countAttempt(): Promise<void> {
    this.#failures += 1
    this.#notBefore = this.#parts.clock() + this.#retryMs()
    await this.#keepAttempts()
  }

  /** The edge stops in between: that is nobody's failure. */
  async #forgetAttempt(failures: number): Promise<void> {
    this.#failures = failures
    this.#notBefore = 0
    await this.#keepAttempts().catch(() => {})
  }

  async #order(signal: AbortSignal): Promise<ServerIdentity> {
    const { directory, names } = this.#config
    const { state, solver, clock } = this.#parts
    const { kept, key } = await openAccount(state, directory)
    const client = new AcmeClient(this.#config, key, { signal, clock })
    await signInAccount(client, kept, { config: this.#config, state })
    const identity = await orderCertificate(client, { names, solver, now: clock })
    await state.writeCertificate({ directory: directory.href, names: [...names], ...identity })
    await state.removeAttempts()
    return identity
  }

  async #fail(error: PosternError): Promise<void> {
    const asked = Number(error.details?.retryAfterMs ?? 0)
    this.#notBefore = this.#parts.clock() + Math.max(asked, this.#retryMs())
    await this.#keepAttempts().catch(() => {}) // a full disk: the next attempt says so
    this.#parts.onFailed(error, this.nextAttemptAt)
  }

  #keepAttempts(): Promise<void> {
    const [settings, failures, notBefore] = [this.#settings, this.#failures, this.#notBefore]
    return this.#parts.state.writeAttempts({ settings, failures, notBefore })
  }

  /** Grows from `retry` to six hours; between half of it and all, so that edges do not come together. */
  #retryMs(): number {
    const full = Math.min(MAX_RETRY_MS, this.#config.firstRetryMs * RETRY_GROWTH ** (this.#failures - 1))
    return Math.round(full * (0.5 + 0.5 * this.#random()))
  }

  /** When a third of the life is left, or up to a twelfth of it sooner. */
  #renewAt(cert: string): number {
    const { validFromDate, validToDate } = new X509Certificate(cert)
    const lifeMs = validToDate.getTime() - validFromDate.getTime()
    return Math.round(validToDate.getTime() - lifeMs * (1 / 3 + this.#random() / 12))
  }

  #isWanted({ directory, names }: KeptCertificate): boolean {
    return directory === this.#config.directory.href && names.join() === this.#config.names.join()
  }
}

/** Changes when an operator has changed something that may have been the reason of a failure. */
function digestOf({ directory, names, email, challenge, externalAccount, caPem }: AcmeConfig): string {
  const facts = [directory.href, names, email, challenge, externalAccount?.keyId, caPem]
  return createHash('sha256').update(JSON.stringify(facts)).digest('hex')
}
