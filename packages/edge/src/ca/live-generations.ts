import { stat } from 'node:fs/promises'
import { toPosternError } from '@postern/shared/errors'
import type { Logger } from '@postern/shared/logger'
import {
  type Generation,
  type GenerationsByKind,
  generationsFile,
  generationsOf,
  readGenerations,
} from './generations.ts'

const LOOK_EVERY_MS = 1_000

export interface LiveGenerationsParts<Kind extends string, CA> {
  kinds: readonly Kind[]
  load: (kind: Kind, name: string) => Promise<CA>
  clock: () => number
  log: Logger
}

/** A CA, with the time that its generation names. */
export interface DatedAuthority<CA> extends Generation {
  authority: CA
}

/** Who signs now, and who is believed, of some kinds of CAs. Looks every second whether the clock or the file of
 *  generations says otherwise by now. What cannot be loaded changes nothing, and is tried again. */
export class LiveGenerations<Kind extends string, CA> implements Disposable {
  readonly #dataDir: string
  readonly #parts: LiveGenerationsParts<Kind, CA>
  /** By kind and name: a key is opened once. */
  readonly #loaded = new Map<string, CA>()
  readonly #listeners: (() => void)[] = []
  #signing: ReadonlyMap<Kind, CA> = new Map()
  #trusted: ReadonlyMap<Kind, readonly DatedAuthority<CA>[]> = new Map()
  #generations: GenerationsByKind = new Map()
  #readAt: number | undefined
  #applied = ''
  #complaint = ''
  #timer: NodeJS.Timeout | undefined

  constructor(dataDir: string, parts: LiveGenerationsParts<Kind, CA>) {
    this.#dataDir = dataDir
    this.#parts = parts
  }

  signing(kind: Kind): CA {
    return this.#signing.get(kind)!
  }

  /** Oldest first; the one that signs is among them. */
  trusted(kind: Kind): readonly DatedAuthority<CA>[] {
    return this.#trusted.get(kind)!
  }

  /** Those that are believed or will be, with their dates and named by this. */
  dated(kind: Kind, nameOf: (authority: CA) => string): Generation[] {
    return this.trusted(kind).map(({ authority, signsFrom, trustedUntil }) => ({
      ...{ name: nameOf(authority), signsFrom, trustedUntil },
    }))
  }

  /** Called when another CA signs, or others are believed. */
  onChanged(listener: () => void): void {
    this.#listeners.push(listener)
  }

  /** @throws what `load` throws · STATE_INVALID */
  async start(): Promise<this> {
    await this.#look()
    const look = () =>
      this.#look().then(
        () => (this.#complaint = ''),
        (error: unknown) => this.#complain(error),
      )
    this.#timer = setInterval(() => void look(), LOOK_EVERY_MS)
    this.#timer.unref()
    return this
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer)
  }

  async #look(): Promise<void> {
    await this.#readWhenChanged()
    const now = this.#parts.clock()
    const wanted = this.#parts.kinds.map((kind) => {
      const generations = generationsOf(this.#generations, kind)
      return { kind, trusted: generations.trusted(now), signing: generations.signing(now).name }
    })
    const asText = JSON.stringify(wanted)
    if (asText === this.#applied) return
    const trusted = new Map<Kind, readonly DatedAuthority<CA>[]>()
    const signing = new Map<Kind, CA>()
    for (const { kind, ...named } of wanted) {
      const load = async (generation: Generation) => ({
        ...generation,
        authority: await this.#load(kind, generation.name),
      })
      trusted.set(kind, await Promise.all(named.trusted.map(load)))
      signing.set(kind, await this.#load(kind, named.signing))
    }
    const isFirst = this.#applied === ''
    this.#trusted = trusted
    this.#signing = signing
    this.#applied = asText
    if (isFirst) return
    const named = wanted.map(({ trusted: all, ...rest }) => ({
      ...rest,
      trusted: all.map(({ name }) => name),
    }))
    this.#parts.log.info('ca.changed', { authorities: named })
    for (const listener of this.#listeners) listener()
  }

  async #readWhenChanged(): Promise<void> {
    const changedAt = await stat(generationsFile(this.#dataDir)).then(
      ({ mtimeMs }) => mtimeMs,
      () => 0,
    )
    if (changedAt === this.#readAt) return
    this.#generations = await readGenerations(this.#dataDir)
    this.#readAt = changedAt
  }

  async #load(kind: Kind, name: string): Promise<CA> {
    const key = `${kind}/${name}`
    const authority = this.#loaded.get(key) ?? (await this.#parts.load(kind, name))
    this.#loaded.set(key, authority)
    return authority
  }

  /** Once for each: it may go on for hours. */
  #complain(cause: unknown): void {
    const error = toPosternError(cause, 'INTERNAL', 'the CAs cannot be read')
    if (error.message === this.#complaint) return
    this.#complaint = error.message
    this.#parts.log.error('ca.reload_failed', { error })
  }
}
