import { createHash } from 'node:crypto'
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
import { RenewalPlan, type RenewalWindow } from './renewal-plan.ts'
import type { AcmeState, KeptAccount, KeptCertificate } from './state.ts'

/** Sees to it that there is always a certificate: orders the first, and the next when the CA advises it or a third of its
 *  life is left. What fails is tried again ever more rarely, also over restarts, and never sooner than the server asks. */

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
  /** The CA advises another time than before. */
  onAdvice: (advice: RenewalAdvice) => void
  /** It gives none now: what was planned stays. */
  onNoAdvice: (error: unknown) => void
}

export interface RenewalAdvice {
  window: RenewalWindow
  nextAttemptAt: number
  /** A page of the CA that says why. */
  explanationUrl: string | undefined
}

export class CertificateKeeper implements AsyncDisposable {
  readonly #config: AcmeConfig
  readonly #parts: KeeperParts
  readonly #settings: string
  readonly #random: () => number
  readonly #stop = new AbortController()
  readonly #plan: RenewalPlan
  #notBefore = 0
  #failures = 0
  #running: Promise<void> | undefined

  constructor(config: AcmeConfig, parts: KeeperParts) {
    this.#config = config
    this.#parts = parts
    this.#settings = digestOf(config)
    this.#random = parts.random ?? Math.random
    this.#plan = new RenewalPlan({
      clock: parts.clock,
      random: this.#random,
      minAskMs: config.firstRetryMs,
    })
  }

  /** When the next order begins, epoch milliseconds. */
  get nextAttemptAt(): number {
    return Math.max(this.#plan.dueAt, this.#notBefore)
  }

  /** When the CA advises to order. */
  get suggestedWindow(): RenewalWindow | undefined {
    return this.#plan.window
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
    if (kept && this.#isWanted(kept)) this.#plan.follow(kept.cert)
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
      const now = this.#parts.clock()
      if (this.#plan.askAt <= now) {
        await this.#ask()
        continue
      }
      const waitMs = Math.min(this.nextAttemptAt, this.#plan.askAt) - now
      if (waitMs > 0) {
        // in steps: the clock may be set, and a timer cannot run for a month
        await pause(Math.min(waitMs, LOOK_EVERY_MS), undefined, { signal, ref: false }).catch(() => {})
        continue
      }
      const turn = await this.#parts.takeTurn(signal).catch(() => undefined) // it is asked to stop
      if (turn) await this.#attempt(turn)
    }
  }

  async #ask(): Promise<void> {
    const { onAdvice, onNoAdvice } = this.#parts
    try {
      const { client } = await this.#openClient(this.#stop.signal)
      const advice = await client.renewalInfo(this.#plan.id!)
      if (!this.#plan.advise(advice)) return
      const [window, nextAttemptAt] = [this.#plan.window!, this.nextAttemptAt]
      onAdvice({ window, nextAttemptAt, explanationUrl: advice?.explanationURL })
    } catch (error) {
      const { details } = toPosternError(error, 'INTERNAL', 'the CA cannot be asked')
      this.#plan.adviceFailed(Number(details?.retryAfterMs ?? 0))
      if (!this.#stop.signal.aborted) onNoAdvice(error)
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
      this.#plan.follow(identity.cert)
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
    const { client, kept } = await this.#openClient(signal)
    await signInAccount(client, kept, { config: this.#config, state })
    const identity = await orderCertificate(client, { names, solver, now: clock, replaces: this.#plan.id })
    await state.writeCertificate({ directory: directory.href, names: [...names], ...identity })
    await state.removeAttempts()
    return identity
  }

  async #openClient(signal: AbortSignal): Promise<{ client: AcmeClient; kept: KeptAccount }> {
    const { kept, key } = await openAccount(this.#parts.state, this.#config.directory)
    return { client: new AcmeClient(this.#config, key, { signal, clock: this.#parts.clock }), kept }
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

  #isWanted({ directory, names }: KeptCertificate): boolean {
    return directory === this.#config.directory.href && names.join() === this.#config.names.join()
  }
}

/** Changes when an operator has changed something that may have been the reason of a failure. */
function digestOf({ directory, names, email, challenge, externalAccount, caPem }: AcmeConfig): string {
  const facts = [directory.href, names, email, challenge, externalAccount?.keyId, caPem]
  return createHash('sha256').update(JSON.stringify(facts)).digest('hex')
}
