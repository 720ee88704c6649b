import { PosternError, toPosternError } from '@postern/shared/errors'
import type { Problem } from '../entry-file.ts'
import { Changing } from './changing.ts'
import type { Begun } from './serve-service.ts'
import type { ServiceEntry, ServiceSettings } from './service-settings.ts'

/** The services of a file. What stays in it is not touched by a change of the rest; what goes takes no new flow, and
 *  those that run may end by themselves. */

interface Running {
  settings: Changing<ServiceSettings>
  isOver: boolean
  /** No new flow. */
  leave(): void
}

export interface ServiceSetParts {
  /** Gets what a connector starts with.
   *  @param isFirst whether somebody may be asked */
  start(settings: ServiceSettings, isFirst: boolean): Promise<Begun>
  /** Serves until it has left, or the edge does not want it any more. Never rejects.
   *  @param on `ready` is called once the edge leads flows to it
   *  @returns why the edge has ended it, if it has */
  serve(
    begun: Begun,
    settings: Changing<ServiceSettings>,
    on: { leaving: AbortSignal; ready: () => void },
  ): Promise<PosternError | undefined>
  /** The edge wants none of them any more. */
  onNoneLeft(reason: PosternError): void
}

export class ServiceSet {
  readonly #parts: ServiceSetParts
  readonly #running = new Map<string, Running>()
  readonly #serving = new Set<Promise<void>>()

  constructor(parts: ServiceSetParts) {
    this.#parts = parts
  }

  get size(): number {
    return this.#running.size
  }

  /** All of them, or none.
   *  @returns what kept any of them from starting */
  async begin(entries: readonly ServiceEntry[]): Promise<Problem[]> {
    const { begun, problems } = await this.#startAll(entries, true)
    if (problems.length > 0) for (const { slot } of begun.values()) slot[Symbol.dispose]()
    else for (const [entry, one] of begun) this.#run(entry, one)
    return problems
  }

  /** @param isWhole nothing is wrong with the file: what is not in it any more has been taken out on purpose
   *  @returns what kept new and changed ones from starting; the others are there, and these as they were */
  async change(entries: readonly ServiceEntry[], isWhole: boolean): Promise<Problem[]> {
    const wanted = new Set(entries.map(({ settings }) => settings.name))
    for (const [name, running] of this.#running) {
      if (isWhole && !wanted.has(name)) this.#takeOut(name, running)
    }
    const { begun, problems } = await this.#startAll(
      entries.filter((entry) => !this.#adopt(entry)),
      false,
    )
    for (const [entry, one] of begun) this.#run(entry, one)
    return problems
  }

  /** Settles when the last one is over, those that were taken out too. */
  async over(): Promise<void> {
    await Promise.all(this.#serving)
  }

  /** @returns whether one that runs does what the entry says, without being started anew */
  #adopt({ settings }: ServiceEntry): boolean {
    const running = this.#running.get(settings.name)
    if (!running) return false
    const { value } = running.settings.now
    if (JSON.stringify(value) === JSON.stringify(settings)) return true
    if (claimOf(value) !== claimOf(settings)) return false
    running.settings.replace(settings)
    return true
  }

  async #startAll(
    entries: readonly ServiceEntry[],
    isFirst: boolean,
  ): Promise<{ begun: Map<ServiceEntry, Begun>; problems: Problem[] }> {
    const begun = new Map<ServiceEntry, Begun>()
    const problems: Problem[] = []
    for (const entry of entries) {
      try {
        begun.set(entry, await this.#parts.start(entry.settings, isFirst))
      } catch (caught) {
        problems.push({ line: entry.line, error: named(entry, caught) })
      }
    }
    return { begun, problems }
  }

  /** One of the same name goes on until the new one has taken its place. */
  #run({ settings }: ServiceEntry, begun: Begun): void {
    const { name } = settings
    const before = this.#running.get(name)
    const leaving = new AbortController()
    const running: Running = {
      settings: new Changing(settings),
      isOver: false,
      leave() {
        before?.leave()
        leaving.abort(new PosternError('SERVICE_OFFLINE', 'the connector has left'))
      },
    }
    this.#running.set(name, running)
    const on = { leaving: leaving.signal, ready: () => before?.leave() }
    const serving = this.#parts.serve(begun, running.settings, on).then((error) => {
      running.isOver = true
      this.#serving.delete(serving)
      if (this.#running.get(name) !== running) return
      if (before?.isOver === false) this.#running.set(name, before)
      else this.#running.delete(name)
      if (error && this.#running.size === 0) this.#parts.onNoneLeft(error)
    })
    this.#serving.add(serving)
  }

  #takeOut(name: string, running: Running): void {
    running.leave()
    this.#running.delete(name)
  }
}

/** What the edge has agreed to; the rest is the connector's own business. */
function claimOf({ target, proxyProtocol, healthCheckMs, sshServer, ...claim }: ServiceSettings): string {
  return JSON.stringify(claim)
}

function named({ settings }: ServiceEntry, caught: unknown): PosternError {
  const { code, message, hint, details } = toPosternError(caught, 'INTERNAL', String(caught))
  return new PosternError(code, `${settings.name}: ${message}`, { hint, ...(details ? { details } : {}) })
}
