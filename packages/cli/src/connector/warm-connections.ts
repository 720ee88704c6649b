import { setTimeout as wait } from 'node:timers/promises'
import { Backoff } from '@postern/shared/backoff'

/** A connection that waited this long was a good one: the next wait is short again. */
const LASTING_MS = 5_000
/** A connector never has more handshakes under way than this, whatever the edge asks for. */
const MAX_OPENING = 64

/** Opens one connection; `onOpen` when it waits for a flow, `onUsed` when it got one. Resolves when it has ended
 *  and throws when it could not be opened. */
export type OpenConnection = (on: { open: () => void; used: () => void }) => Promise<void>

/** Keeps data connections ready: as many as the edge wants to see unused, one more for every one that is used, and
 *  more when it asks. Ends with its signal. */
export class WarmConnections {
  readonly #open: OpenConnection
  readonly #warm: number
  readonly #signal: AbortSignal
  readonly #backoff: Backoff = new Backoff(250, 10_000)
  #opening = 0
  #idle = 0
  #retrying = false

  constructor(open: OpenConnection, warm: number, signal: AbortSignal) {
    this.#open = open
    this.#warm = warm
    this.#signal = signal
    this.#fill()
  }

  want(count: number): void {
    const room = Math.min(count, MAX_OPENING - this.#opening)
    for (let opened = 0; opened < room; opened++) this.#start()
  }

  #fill(): void {
    this.want(this.#warm - this.#opening - this.#idle)
  }

  #start(): void {
    if (this.#signal.aborted) return
    let state: 'opening' | 'idle' | 'used' = 'opening'
    let openedAt = 0
    this.#opening++
    const leave = () => {
      if (state === 'opening') this.#opening--
      if (state === 'idle') this.#idle--
    }
    const on = {
      open: () => {
        leave()
        state = 'idle'
        this.#idle++
        openedAt = performance.now()
      },
      used: () => {
        leave()
        state = 'used'
        this.#backoff.reset()
        this.#start() // the edge counts on a replacement at once
      },
    }
    this.#open(on).then(
      () => {
        leave()
        if (state === 'used') return
        if (performance.now() - openedAt < LASTING_MS) return this.#retryLater()
        this.#backoff.reset()
        this.#fill()
      },
      () => {
        leave()
        if (state !== 'used') this.#retryLater()
      },
    )
  }

  /** One retry for all that failed, or were closed at once: the reason is the same, and the control connection tells it. */
  #retryLater(): void {
    if (this.#retrying || this.#signal.aborted) return
    this.#retrying = true
    wait(this.#backoff.next(), undefined, { signal: this.#signal }).then(
      () => {
        this.#retrying = false
        this.#fill()
      },
      () => undefined, // the attachment has ended
    )
  }
}
