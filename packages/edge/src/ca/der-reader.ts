/** Reads DER: lengths in their shortest form, nothing beyond the end. */
export class DerReader {
  readonly #bytes: Buffer
  readonly #fail: () => Error
  #at = 0

  /** @param fail makes the error of whatever cannot be read */
  constructor(bytes: Uint8Array, fail: () => Error) {
    this.#fail = fail
    this.#bytes = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  }

  get length(): number {
    return this.#bytes.length
  }

  get isAtEnd(): boolean {
    return this.#at === this.#bytes.length
  }

  next(): { tag: number; content: Buffer } {
    const tag = this.#byte()
    const first = this.#byte()
    let length = first
    if (first >= 0x80) {
      const count = first - 0x80
      if (count < 1 || count > 3) throw this.#fail()
      length = 0
      for (let left = count; left > 0; left--) length = length * 256 + this.#byte()
      if (length < 0x80 || length < 256 ** (count - 1)) throw this.#fail()
    }
    const end = this.#at + length
    if (end > this.#bytes.length) throw this.#fail()
    const content = this.#bytes.subarray(this.#at, end)
    this.#at = end
    return { tag, content }
  }

  take(tag: number): Buffer {
    const found = this.next()
    if (found.tag !== tag) throw this.#fail()
    return found.content
  }

  enter(tag: number): DerReader {
    return new DerReader(this.take(tag), this.#fail)
  }

  skipIf(tag: number): void {
    if (this.peek() === tag) this.next()
  }

  /** The tag of what comes next; undefined at the end. */
  peek(): number | undefined {
    return this.#bytes[this.#at]
  }

  /** The next value with its tag and length, as it was signed. */
  whole(): Buffer {
    const from = this.#at
    this.next()
    return this.#bytes.subarray(from, this.#at)
  }

  #byte(): number {
    const byte = this.#bytes[this.#at++]
    if (byte === undefined) throw this.#fail()
    return byte
  }
}
