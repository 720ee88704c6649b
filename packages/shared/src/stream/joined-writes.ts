import type { Writable } from 'node:stream'
import { sendAtTurnEnd } from './turn-end.ts'

/** A message that is sent by itself and at once: a key press, a query, an answer of a few rows. */
export const SMALL_BYTES = 1_024

/** Joins what one turn of the event loop writes into one write of the socket: a TLS socket encrypts and sends
 *  it in one go. Measured: 2.8 to 3.6 Gbit/s over the full path, a fifth less CPU per byte. A small message that is the
 *  first of its turn does not wait for others, most often there are none. */
export class JoinedWrites {
  readonly #stream: Writable
  #isTurnBegun = false
  #isCorked = false

  constructor(stream: Writable) {
    this.#stream = stream
  }

  /** @returns false when the caller should wait for the stream's `drain` */
  write(bytes: Buffer, written?: (error?: Error | null) => void): boolean {
    if (!this.#isCorked) {
      this.#isCorked = true
      this.#stream.cork()
      this.#beginTurn()
    }
    return this.#stream.write(bytes, written)
  }

  /** As `write`, for bytes that make sense by themselves. */
  writeWhole(bytes: Buffer, written?: (error?: Error | null) => void): boolean {
    if (this.#isTurnBegun || bytes.length > SMALL_BYTES) return this.write(bytes, written)
    this.#beginTurn()
    return this.#stream.write(bytes, written)
  }

  #beginTurn(): void {
    if (this.#isTurnBegun) return
    this.#isTurnBegun = true
    sendAtTurnEnd(() => {
      this.#isTurnBegun = false
      if (!this.#isCorked) return
      this.#isCorked = false
      this.#stream.uncork()
    })
  }
}
