/** The data types of SSH (RFC 4251 §5), read with bounds and written. Nothing here knows what the bytes mean. */

/** Reads from the front. Every length is checked before anything is taken.
 *  @throws RangeError the bytes end too early */
export class SshReader {
  readonly #bytes: Buffer
  #offset = 0

  constructor(bytes: Buffer) {
    this.#bytes = bytes
  }

  /** Bytes taken so far. */
  get offset(): number {
    return this.#offset
  }

  get isAtEnd(): boolean {
    return this.#offset === this.#bytes.length
  }

  take(length: number): Buffer {
    const end = this.#offset + length
    if (end > this.#bytes.length) throw new RangeError(`${length} bytes wanted, fewer are there`)
    const taken = this.#bytes.subarray(this.#offset, end)
    this.#offset = end
    return taken
  }

  byte(): number {
    return this.take(1)[0]!
  }

  uint32(): number {
    return this.take(4).readUInt32BE()
  }

  uint64(): bigint {
    return this.take(8).readBigUInt64BE()
  }

  string(): Buffer {
    return this.take(this.uint32())
  }

  /** A positive integer as OpenSSH writes it: shortest form, without its sign byte. */
  positiveInteger(): Buffer {
    const bytes = this.string()
    if (bytes.length === 0 || (bytes[0]! & 0x80) !== 0) throw new RangeError('an integer is not positive')
    if (bytes[0] !== 0) return bytes
    if (bytes.length === 1 || (bytes[1]! & 0x80) === 0) throw new RangeError('an integer has leading zeros')
    return bytes.subarray(1)
  }

  end(): void {
    if (!this.isAtEnd) throw new RangeError('bytes are left over')
  }
}

export function sshString(value: string | Buffer): Buffer {
  const bytes = typeof value === 'string' ? Buffer.from(value) : value
  return Buffer.concat([sshUint32(bytes.length), bytes])
}

export function sshUint32(value: number): Buffer {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32BE(value)
  return bytes
}

export function sshUint64(value: bigint): Buffer {
  const bytes = Buffer.alloc(8)
  bytes.writeBigUInt64BE(value)
  return bytes
}

/** A positive integer of any size, given as big-endian bytes. */
export function sshInteger(bytes: Buffer): Buffer {
  const first = bytes.findIndex((byte) => byte !== 0)
  const trimmed = first < 0 ? Buffer.alloc(0) : bytes.subarray(first)
  const needsSign = trimmed.length > 0 && (trimmed[0]! & 0x80) !== 0
  return sshString(needsSign ? Buffer.concat([Buffer.of(0), trimmed]) : trimmed)
}
