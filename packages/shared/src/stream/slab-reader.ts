import { Socket } from 'node:net'
import type { Readable } from 'node:stream'
import { passOnAtTurnEnd } from './turn-end.ts'

/** Reads a busy connection into memory of its own, a turn of the event loop at a time.
 *
 *  A stream of Node makes an ArrayBuffer and an event of every TLS record (16 KiB). Read like this, everything that
 *  arrives in one turn lies side by side in a slab, is passed on as one piece, and the slab is filled again once
 *  those who got it have written it. Measured over the whole path: a fifth less CPU per byte
 *  (docs/decisions/0009-slabs.md).
 *
 *  Node offers this for connections that a program opens (`onread` of net.connect), not for those it accepts: there
 *  the same fields are set afterwards. Where a version of Node has them no more, or the input is no socket, this does
 *  nothing and the stream goes on as it was. */

export const SLAB_BYTES = 128 * 1024
/** A slab with less room than a TLS record is left for the next one. */
const LEAST_ROOM = 16 * 1024
/** After so many turns with hardly a byte each the slabs are given up. */
const QUIET_TURNS = 16
const QUIET_BYTES = 4 * 1024
/** Where a quiet connection is read into. What lies in it is copied. */
const QUIET_BUFFER_BYTES = 4 * 1024
/** Empty slabs that one reader keeps: as many as can wait to be written, or a slow receiver makes garbage of the rest
 *  with every round. A slab never serves another connection: no bytes of one can show up in another. */
const MAX_SPARE = 16
/** After so long without a byte they are given up. */
export const SPARE_MS = 1_000

/** Memory that is lent: whoever passes the bytes on borrows it first, and gives it back when they are written. What
 *  nobody borrows belongs to whoever got it, for as long as they like. */
export interface Lender {
  borrow(): Loan
}

/** To be called once, when the bytes are not needed any more. */
export type Loan = (error?: Error | null) => void

interface Fields {
  buffer: symbol
  callback: symbol
  generator: symbol
}

/** What net.Socket keeps of its option `onread`. */
function findFields(socket: Socket): Fields | undefined {
  const symbols = Object.getOwnPropertySymbols(socket)
  const find = (name: string) => symbols.find((symbol) => symbol.description === name)
  const [buffer, callback, generator] = [find('kBuffer'), find('kBufferCb'), find('kBufferGen')]
  return buffer && callback && generator ? { buffer, callback, generator } : undefined
}

interface Handle {
  useUserBuffer?: (buffer: Uint8Array) => void
}

class Slab implements Lender {
  readonly memory: Buffer = Buffer.allocUnsafeSlow(SLAB_BYTES)
  #loans = 0
  /** How often, until now. */
  borrowed = 0
  /** Somebody has bytes of it that were not borrowed, or were not written: it is not filled again. */
  isGivenAway = false
  /** Hears that all loans are back. */
  onFree: (() => void) | undefined

  get isFree(): boolean {
    return this.#loans === 0 && !this.isGivenAway
  }

  borrow(): Loan {
    this.borrowed++
    this.#loans++
    return (error) => {
      this.#loans--
      if (error) this.isGivenAway = true
      if (this.isFree) this.onFree?.()
    }
  }
}

export class SlabReader {
  readonly #onBytes: (bytes: Buffer, lender?: Lender) => void
  readonly #spare: Slab[] = []
  readonly #spareTime: NodeJS.Timeout
  #slab: Slab | undefined
  /** In `#slab`, or of the quiet buffer: read and not passed on. */
  #from = 0
  #to = 0
  #quietTurns = 0
  #isDue = false
  readonly #quiet = Buffer.allocUnsafeSlow(QUIET_BUFFER_BYTES)

  /** @returns undefined where the input cannot be read like this. From then on its `data` events cease. */
  static attach(input: Readable, onBytes: (bytes: Buffer, lender?: Lender) => void): SlabReader | undefined {
    if (!(input instanceof Socket)) return undefined
    const handle = (input as Socket & { _handle?: Handle | null })._handle
    const fields = findFields(input)
    if (!fields || typeof handle?.useUserBuffer !== 'function') return undefined
    const reader = new SlabReader(onBytes)
    const first = reader.#nextBuffer()
    Object.assign(input, {
      [fields.buffer]: first,
      [fields.callback]: (count: number) => reader.#onRead(count),
      [fields.generator]: () => reader.#nextBuffer(),
    })
    handle.useUserBuffer(first)
    return reader
  }

  private constructor(onBytes: (bytes: Buffer, lender?: Lender) => void) {
    this.#onBytes = onBytes
    this.#spareTime = setTimeout(() => this.#giveUpSpare(), SPARE_MS).unref()
  }

  /** Passes on what has arrived. To be called before an end of the input is acted on. */
  flush(): void {
    if (this.#to === this.#from) return
    this.#spareTime.refresh()
    const [from, to, slab] = [this.#from, this.#to, this.#slab!]
    this.#from = to
    this.#noteQuiet(to - from)
    const { borrowed } = slab
    this.#onBytes(slab.memory.subarray(from, to), slab)
    // whoever keeps the bytes without a loan keeps the slab
    if (slab.borrowed === borrowed) slab.isGivenAway = true
  }

  #onRead(count: number): boolean {
    if (!this.#slab) {
      this.#noteQuiet(count)
      this.#onBytes(Buffer.from(this.#quiet.subarray(0, count)))
      return true
    }
    this.#to += count
    if (!this.#isDue) {
      this.#isDue = true
      passOnAtTurnEnd(() => {
        this.#isDue = false
        this.flush()
      })
    }
    return true
  }

  #noteQuiet(bytes: number): void {
    this.#quietTurns = bytes < QUIET_BYTES ? this.#quietTurns + 1 : 0
  }

  /** Where the next bytes go. Asked after every read. */
  #nextBuffer(): Buffer {
    if (this.#quietTurns >= QUIET_TURNS) {
      this.flush()
      this.#slab = undefined
      this.#giveUpSpare()
      return this.#quiet
    }
    if (!this.#slab || SLAB_BYTES - this.#to < LEAST_ROOM) {
      this.flush()
      this.#retire(this.#slab)
      this.#slab = this.#spare.pop() ?? new Slab()
      this.#from = this.#to = 0
    }
    return this.#slab.memory.subarray(this.#to)
  }

  #giveUpSpare(): void {
    this.#spare.length = 0
  }

  #retire(slab: Slab | undefined): void {
    if (!slab || slab.isGivenAway) return
    slab.onFree = () => {
      slab.onFree = undefined
      this.#spareTime.refresh()
      if (this.#spare.length < MAX_SPARE && this.#slab) this.#spare.push(slab)
    }
    if (slab.isFree) slab.onFree()
  }
}
