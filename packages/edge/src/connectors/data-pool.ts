import { PosternError } from '@postern/shared/errors'
import type { FramedEnd } from '@postern/shared/stream/framed-end'

/** Never more than this many connections wait unused, however busy it was. */
const MAX_WARM = 16
/** How often the pool forgets half of the burst it grew for. */
const SHRINK_EVERY_MS = 10_000
/** How long flows wait for connections that were asked for before the pool asks again: a connector may open fewer,
 *  or fail to. */
const ASK_AGAIN_MS = 1_000

interface Waiting {
  resolve: (end: FramedEnd) => void
  reject: (error: PosternError) => void
}

/** The data connections of one attachment: warm ones wait here, each serves one flow and is gone. The connector
 *  replaces what is used; in a burst the pool asks for more and gives the surplus back when it is quiet. */
export class DataPool {
  readonly #want: (count: number) => void
  readonly #maxConnections: number
  /** The newest last. */
  readonly #idle: FramedEnd[] = []
  /** Flows without a connection, the first come first. */
  readonly #waiting: Waiting[] = []
  readonly #shrink: NodeJS.Timeout
  #askAgain: NodeJS.Timeout | undefined
  /** How many should wait unused. */
  #target = 1
  /** On their way, as far as the connector does what it was asked to. */
  #expected = 0
  #inUse = 0
  #closed: PosternError | undefined

  /** @param want asks the connector to open `count` more connections
   *  @param maxConnections 2 or more, used and waiting; one place is kept for the connection that waits: a
   *  connector whose only waiting one is refused would try again for ever */
  constructor(want: (count: number) => void, maxConnections: number) {
    this.#want = want
    this.#maxConnections = maxConnections
    this.#shrink = setInterval(() => this.#giveBackSurplus(), SHRINK_EVERY_MS)
    this.#shrink.unref()
  }

  get size(): { idle: number; inUse: number } {
    return { idle: this.#idle.length, inUse: this.#inUse }
  }

  /** Flows that have none yet. */
  get waiting(): number {
    return this.#waiting.length
  }

  /** A new connection of the connector, its hello read. */
  offer(end: FramedEnd): void {
    this.#expected = Math.max(0, this.#expected - 1)
    if (end.closed) return
    if (this.#closed) return end.abort(this.#closed)
    const next = this.#hasRoomForFlow ? this.#waiting.shift() : undefined
    if (next) return next.resolve(this.#use(end))
    if (this.#idle.length >= Math.min(this.#target, this.#maxConnections - this.#inUse)) {
      return end.abort(notNeeded())
    }
    this.#idle.push(end)
    // a waiting connection says nothing: whatever it does say, or its loss, takes it out of the pool
    end.receive({
      chunk: () => this.#discard(end),
      end: () => this.#discard(end),
      control: () => this.#discard(end),
      drain: () => {},
      cut: () => this.#remove(end),
    })
    end.resume()
  }

  /** A connection for one flow: a warm one at once, else the next that arrives. Hand it back with `release` when
   *  the flow is over. Starts paused.
   *  @throws the signal's reason · SERVICE_OFFLINE the attachment ended */
  async take(signal: AbortSignal): Promise<FramedEnd> {
    signal.throwIfAborted()
    if (this.#closed) throw this.#closed
    this.#target = Math.min(MAX_WARM, this.#target + 1)
    const warm = this.#hasRoomForFlow ? this.#takeIdle() : undefined
    if (!warm) return this.#waitForNext(signal)
    this.#use(warm)
    this.#refill()
    return warm
  }

  release(): void {
    this.#inUse--
    if (this.#waiting.length === 0 || this.#closed) return
    const warm = this.#takeIdle()
    if (warm) this.#waiting.shift()!.resolve(this.#use(warm))
    this.#refill()
  }

  /** No flow is led here any more; those that run go on. */
  close(reason: PosternError): void {
    this.#closed ??= reason
    clearInterval(this.#shrink)
    clearTimeout(this.#askAgain)
    for (const end of this.#idle.splice(0)) end.abort(reason)
    for (const { reject } of this.#waiting.splice(0)) reject(reason)
  }

  get #hasRoomForFlow(): boolean {
    return this.#inUse < this.#maxConnections - 1
  }

  #takeIdle(): FramedEnd | undefined {
    let end = this.#idle.pop()
    while (end?.closed) end = this.#idle.pop()
    return end
  }

  #use(end: FramedEnd): FramedEnd {
    end.pause()
    this.#inUse++
    this.#expected++ // the connector replaces what is used
    return end
  }

  #waitForNext(signal: AbortSignal): Promise<FramedEnd> {
    return new Promise((resolve, reject) => {
      const onAbort = () => {
        const index = this.#waiting.indexOf(entry)
        if (index >= 0) this.#waiting.splice(index, 1)
        reject(signal.reason)
      }
      const settle = () => signal.removeEventListener('abort', onAbort)
      const entry = {
        resolve: (end: FramedEnd) => {
          settle()
          resolve(end)
        },
        reject: (error: PosternError) => {
          settle()
          reject(error)
        },
      }
      signal.addEventListener('abort', onAbort)
      this.#waiting.push(entry)
      this.#refill()
    })
  }

  /** Asks for what is missing and is not on its way. */
  #refill(): void {
    const missing = this.#waiting.length + this.#target - this.#idle.length - this.#expected
    const room = this.#maxConnections - this.#idle.length - this.#inUse - this.#expected
    const count = Math.min(missing, room)
    if (count > 0) {
      this.#expected += count
      this.#want(count)
    }
    if (this.#waiting.length > 0)
      this.#askAgain ??= setTimeout(() => this.#askOnceMore(), ASK_AGAIN_MS).unref()
  }

  #askOnceMore(): void {
    this.#askAgain = undefined
    if (this.#waiting.length === 0) return
    this.#expected = 0
    this.#refill()
  }

  #giveBackSurplus(): void {
    this.#target = Math.max(1, this.#target >> 1)
    this.#expected = 0 // what was asked for long ago will not come any more
    while (this.#idle.length > this.#target) this.#idle.shift()?.abort(notNeeded())
  }

  #discard(end: FramedEnd): void {
    this.#remove(end)
    end.abort(new PosternError('PROTOCOL_INVALID', 'a waiting data connection must stay silent'))
  }

  #remove(end: FramedEnd): void {
    const index = this.#idle.indexOf(end)
    if (index >= 0) this.#idle.splice(index, 1)
  }
}

function notNeeded(): PosternError {
  return new PosternError('EDGE_STOPPING', 'this connection is not needed any more')
}
