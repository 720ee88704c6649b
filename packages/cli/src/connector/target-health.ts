import { setTimeout as wait } from 'node:timers/promises'
import type { ErrorCode, PosternError } from '@postern/shared/errors'
import type { TargetMessage } from '@postern/shared/protocol/connector-control'
import { writeLocalHeader } from '@postern/shared/proxy-protocol/header'
import { errorFields } from '../events.ts'
import type { Changing } from './changing.ts'
import type { ConnectorSettings } from './connector.ts'
import { dialService, whatWasFound } from './dial-service.ts'
import type { Report } from './events.ts'

/** Looks again and again whether the service takes connections, so that it shows before somebody needs it. It decides
 *  nothing: a flow is led to a service that is down all the same, and is told what it finds. */

const CLOSE_TIMEOUT_MS = 1_000
/** The longest that a timer takes. */
const NEVER_MS = 2 ** 31 - 1

interface Health {
  state: 'up' | 'down'
  code?: ErrorCode
}

export class TargetHealth {
  readonly #report: Report
  readonly #onChange: () => void
  #health: Health | undefined
  #since = 0

  /** @param onChange there is another message to send */
  constructor(report: Report, onChange: () => void) {
    this.#report = report
    this.#onChange = onChange
  }

  /** What the edge is told; undefined before the first look, and where nobody looks. */
  get message(): TargetMessage | undefined {
    if (!this.#health) return undefined
    return { type: 'target', ...this.#health, forMs: Math.round(performance.now() - this.#since) }
  }

  /** Until the signal aborts. */
  async watch(settings: Changing<ConnectorSettings>, signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      const { value, replaced } = settings.now
      const outdated = new AbortController()
      void replaced.then(() => outdated.abort())
      const isOver = AbortSignal.any([signal, outdated.signal])
      const { healthCheckMs } = value
      if (healthCheckMs > 0) await this.#look(value, isOver)
      await wait(healthCheckMs || NEVER_MS, undefined, { signal: isOver }).catch(() => undefined)
    }
  }

  async #look({ target, proxyProtocol }: ConnectorSettings, signal: AbortSignal): Promise<void> {
    try {
      const socket = await dialService(target, signal)
      socket.on('error', () => undefined)
      // it may have something to say, as an ssh server has: unread, that would be a reset
      socket.resume()
      if (proxyProtocol) socket.write(writeLocalHeader())
      socket.end()
      socket.setTimeout(CLOSE_TIMEOUT_MS, () => socket.destroy())
      this.#is({ state: 'up' })
    } catch (caught) {
      if (!signal.aborted)
        this.#is({ state: 'down', code: (caught as PosternError).code }, caught as PosternError)
    }
  }

  #is(health: Health, error?: PosternError): void {
    const { state, code } = this.#health ?? {}
    if (health.state === state && health.code === code) return
    // what is well from the beginning is no news
    if (error) this.#report({ event: 'target.down', ...errorFields(error), found: whatWasFound(error) })
    else if (state === 'down') this.#report({ event: 'target.up' })
    // another reason is no other state
    if (health.state !== state) this.#since = performance.now()
    this.#health = health
    this.#onChange()
  }
}
