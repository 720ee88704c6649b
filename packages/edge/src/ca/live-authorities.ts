import { X509Certificate } from 'node:crypto'
import { stat } from 'node:fs/promises'
import { toPosternError } from '@postern/shared/errors'
import type { Logger } from '@postern/shared/logger'
import {
  AUTHORITY_KINDS,
  type Authorities,
  type Authority,
  type AuthorityKind,
  loadAuthority,
} from './authorities.ts'
import {
  type Generation,
  type GenerationsByKind,
  generationsFile,
  generationsOf,
  readGenerations,
} from './generations.ts'
import type { KeyLock } from './key-file.ts'

const LOOK_EVERY_MS = 1_000

export interface LiveAuthoritiesParts {
  lock: KeyLock | undefined
  clock: () => number
  log: Logger
}

/** The CAs of a running edge: who signs now, and who is believed. Looks every second whether the clock or the file of
 *  generations says otherwise by now. What cannot be loaded changes nothing, and is tried again. */
export class LiveAuthorities implements Authorities, Disposable {
  readonly #dataDir: string
  readonly #parts: LiveAuthoritiesParts
  /** By kind and name: a key is opened once. */
  readonly #loaded = new Map<string, Authority>()
  readonly #listeners: (() => void)[] = []
  #signing!: Authorities
  #trusted!: ReadonlyMap<AuthorityKind, readonly Authority[]>
  #certificates!: ReadonlyMap<AuthorityKind, readonly X509Certificate[]>
  #generations: GenerationsByKind = new Map()
  #readAt: number | undefined
  #applied = ''
  #complaint = ''
  #timer: NodeJS.Timeout | undefined

  constructor(dataDir: string, parts: LiveAuthoritiesParts) {
    this.#dataDir = dataDir
    this.#parts = parts
  }

  get client(): Authority {
    return this.#signing.client
  }
  get connector(): Authority {
    return this.#signing.connector
  }
  get workload(): Authority {
    return this.#signing.workload
  }
  get edge(): Authority {
    return this.#signing.edge
  }

  /** Oldest first; the one that signs is among them. */
  trusted(kind: AuthorityKind): readonly Authority[] {
    return this.#trusted.get(kind)!
  }

  /** The same, for looking at a leaf. */
  certificates(kind: AuthorityKind): readonly X509Certificate[] {
    return this.#certificates.get(kind)!
  }

  /** The same in PEM, for OpenSSL. */
  bundle(kind: AuthorityKind): string {
    return this.trusted(kind)
      .map(({ certificatePem }) => certificatePem)
      .join('')
  }

  /** Those that are believed or will be, with their dates and named by this. */
  dated(kind: AuthorityKind, nameOf: (authority: Authority) => string): Generation[] {
    const known = generationsOf(this.#generations, kind).trusted(this.#parts.clock())
    return known.flatMap((generation) => {
      const authority = this.#loaded.get(`${kind}/${generation.name}`)
      return authority ? [{ ...generation, name: nameOf(authority) }] : []
    })
  }

  /** Called when another CA signs, or others are believed. */
  onChanged(listener: () => void): void {
    this.#listeners.push(listener)
  }

  /** @throws as `loadAuthority` · STATE_INVALID */
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
    const wanted = AUTHORITY_KINDS.map((kind) => {
      const generations = generationsOf(this.#generations, kind)
      const trusted = generations.trusted(now).map(({ name }) => name)
      return { kind, trusted, signing: generations.signing(now).name }
    })
    const asText = JSON.stringify(wanted)
    if (asText === this.#applied) return
    const trusted = new Map<AuthorityKind, readonly Authority[]>()
    const signing = new Map<AuthorityKind, Authority>()
    for (const { kind, ...names } of wanted) {
      trusted.set(kind, await Promise.all(names.trusted.map((name) => this.#load(kind, name))))
      signing.set(kind, await this.#load(kind, names.signing))
    }
    const isFirst = this.#applied === ''
    this.#trusted = trusted
    this.#certificates = new Map(
      [...trusted].map(([kind, all]) => [kind, all.map((one) => new X509Certificate(one.certificatePem))]),
    )
    this.#signing = Object.fromEntries(signing) as Record<AuthorityKind, Authority>
    this.#applied = asText
    if (isFirst) return
    this.#parts.log.info('ca.changed', { authorities: wanted })
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

  async #load(kind: AuthorityKind, name: string): Promise<Authority> {
    const key = `${kind}/${name}`
    const authority =
      this.#loaded.get(key) ?? (await loadAuthority(this.#dataDir, kind, { name, lock: this.#parts.lock }))
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
