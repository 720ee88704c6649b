import type { Readable } from 'node:stream'
import { type Lender, SlabReader } from './slab-reader.ts'

/** After so many bytes a connection is a busy one. A shell hardly ever is; a copy is after a moment. */
const BUSY_BYTES = 256 * 1024

/** Reads a stream: by its events at first, and into slabs once it has shown to be busy, so that the many quiet
 *  connections cost no memory. Its owner pauses and resumes the stream as ever. */
export class BusyReader {
  readonly #input: Readable
  readonly #onBytes: (bytes: Buffer, lender?: Lender) => void
  #bytesRead = 0
  #slabs: SlabReader | undefined

  constructor(input: Readable, onBytes: (bytes: Buffer, lender?: Lender) => void) {
    this.#input = input
    this.#onBytes = onBytes
    input.on('data', (bytes: Buffer) => this.#onData(bytes))
  }

  /** Passes on what has arrived. To be called before an end of the input is acted on. */
  flush(): void {
    this.#slabs?.flush()
  }

  #onData(bytes: Buffer): void {
    this.#bytesRead += bytes.length
    // what the stream holds already would come after what a slab brings
    if (this.#bytesRead >= BUSY_BYTES && !this.#slabs && this.#input.readableLength === 0) {
      this.#bytesRead = 0
      this.#slabs = SlabReader.attach(this.#input, this.#onBytes)
    }
    this.#onBytes(bytes)
  }
}
