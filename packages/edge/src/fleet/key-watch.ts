import { hostname } from 'node:os'
import { PosternError } from '@postern/shared/errors'
import type { Logger } from '@postern/shared/logger'
import type { Kysely } from 'kysely'
import type { KeysStatus } from '../status.ts'
import {
  announceEdge,
  EDGE_SEEN_MS,
  type EdgeKeys,
  forgetEdge,
  type KeyRing,
  listOtherEdges,
} from '../store/edge-keys.ts'
import { inTransaction } from '../store/in-transaction.ts'
import type { Database } from '../store/schema.ts'
import { takeTurn } from '../store/take-turns.ts'
import { compareKeys, type KeyDifference } from './compare-keys.ts'

/** Tells the other edges of a store which keys this one has, and finds out when theirs are others: then people are refused
 *  at one edge with what another gave them. An edge that comes and differs does not start. Among edges that run nobody can
 *  say which one is right, so each says it and serves on. */
export interface KeyWatch extends AsyncDisposable {
  /** How many other edges have other keys now. */
  readonly differing: number
  describe(): KeysStatus
  /** Told when what it describes has changed. */
  onStatus(listener: () => void): void
}

export interface KeyWatchParts {
  db: Kysely<Database>
  /** Its name on this store. */
  edge: string
  keys: () => KeyRing
  clock: () => number
  log: Logger
}

const LOOK_EVERY_MS = 2_000

/** @throws EDGE_KEYS_DIFFER an edge that runs has other keys */
export async function watchKeys(parts: KeyWatchParts): Promise<KeyWatch> {
  const watch = new SharedKeyWatch(parts)
  await watch.start()
  return watch
}

/** Another edge with other keys. */
interface Differing {
  place: string
  kinds: readonly string[]
  /** Epoch milliseconds: since when, or from when on. */
  from: number
  isPresent: boolean
  /** Not the first time that it is seen: the other edge may not have said yet what it has been given. */
  isSaid: boolean
}

class SharedKeyWatch implements KeyWatch {
  readonly #parts: KeyWatchParts
  readonly #place = `${hostname()}, process ${process.pid}`
  readonly #listeners: (() => void)[] = []
  #compared = 0
  /** By the name of the edge. */
  #differing: ReadonlyMap<string, Differing> = new Map()
  #timer: NodeJS.Timeout | undefined
  #looking: Promise<void> = Promise.resolve()
  #isOver = false

  constructor(parts: KeyWatchParts) {
    this.#parts = parts
  }

  get differing(): number {
    return this.#said().filter(({ isPresent }) => isPresent).length
  }

  describe(): KeysStatus {
    const differing = this.#said().map(({ place, kinds, from, isPresent }) => ({
      edge: place,
      kinds: [...kinds],
      from,
      isPresent,
    }))
    return { compared: this.#compared, differing }
  }

  onStatus(listener: () => void): void {
    this.#listeners.push(listener)
  }

  /** One after the other: of two that come at once and differ, the first one stays. */
  async start(): Promise<void> {
    const { db, edge, keys, clock } = this.#parts
    await inTransaction(db, async (trx) => {
      await takeTurn(trx, 'edge-keys')
      const others = await listOtherEdges(trx, edge)
      refuseDifferent(others, keys(), clock())
      this.#compared = others.length
      await this.#announce(trx)
    })
    this.#lookLater()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#isOver = true
    clearTimeout(this.#timer)
    await this.#looking
    await forgetEdge(this.#parts.db, this.#parts.edge).catch(() => {}) // then its time runs out
  }

  #said(): Differing[] {
    return [...this.#differing.values()].filter(({ isSaid }) => isSaid)
  }

  #announce(db: Kysely<Database>): Promise<void> {
    const { edge, keys } = this.#parts
    return announceEdge(db, { edge, place: this.#place, keys: keys() })
  }

  #lookLater(): void {
    if (this.#isOver) return
    this.#timer = setTimeout(() => {
      this.#looking = this.#look()
        .catch((error: unknown) => this.#parts.log.debug('fleet.keys_not_compared', { error })) // the store is gone
        .finally(() => this.#lookLater())
    }, LOOK_EVERY_MS).unref()
  }

  async #look(): Promise<void> {
    const { db, edge } = this.#parts
    await this.#announce(db)
    const others = await listOtherEdges(db, edge)
    const before = JSON.stringify(this.describe())
    this.#compared = others.length
    this.#compare(others)
    if (JSON.stringify(this.describe()) === before) return
    for (const listener of this.#listeners) listener()
  }

  #compare(others: readonly EdgeKeys[]): void {
    const { keys, clock, log } = this.#parts
    const [mine, now] = [keys(), clock()]
    const found = new Map<string, Differing>()
    for (const { edge, place, keys: theirs } of others) {
      const earlier = this.#differing.get(edge)
      const differing = findDifference(place, compareKeys(mine, theirs, now), now)
      if (differing) found.set(edge, this.#say(differing, earlier))
      else if (earlier?.isSaid) log.info('fleet.keys_agree', { edge: place })
    }
    this.#differing = found
  }

  /** Once for each. */
  #say(differing: Differing, earlier: Differing | undefined): Differing {
    if (!earlier || !isSame(differing, earlier)) return differing
    if (earlier.isSaid) return earlier
    const { place: edge, kinds, from, isPresent } = earlier
    const { log } = this.#parts
    if (isPresent) log.error('fleet.keys_differ', { code: 'EDGE_KEYS_DIFFER', edge, kinds })
    else log.warn('fleet.keys_will_differ', { edge, kinds, from: new Date(from).toISOString() })
    return { ...earlier, isSaid: true }
  }
}

function findDifference(
  place: string,
  differences: readonly KeyDifference[],
  now: number,
): Differing | undefined {
  if (differences.length === 0) return undefined
  const from = Math.min(...differences.map((difference) => difference.from))
  const kinds = differences.filter((difference) => difference.from === from).map(({ kind }) => kind)
  return { place, kinds, from, isPresent: from <= now, isSaid: false }
}

function isSame(one: Differing, other: Differing): boolean {
  if (one.kinds.join() !== other.kinds.join() || one.isPresent !== other.isPresent) return false
  return one.isPresent || one.from === other.from
}

function refuseDifferent(others: readonly EdgeKeys[], mine: KeyRing, now: number): void {
  for (const { place, keys } of others) {
    const differing = findDifference(place, compareKeys(mine, keys, now), now)
    if (!differing?.isPresent) continue
    throw new PosternError(
      'EDGE_KEYS_DIFFER',
      `an edge that runs on this store (${place}) has other keys for: ${differing.kinds.join(', ')}`,
      {
        hint: `copy ca and login-keys.json from its data_dir into this one, with their modes, and start again; an edge that was killed counts for ${EDGE_SEEN_MS / 1_000} seconds`,
      },
    )
  }
}
