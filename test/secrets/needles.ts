import type { Secret } from './run-record.ts'

/** Looks for thousands of secrets in megabytes at once. */
export class Needles {
  /** By the first characters. */
  readonly #byStart = new Map<string, { text: string; kind: string }[]>()
  /** One bit for each start of three characters: nearly every place of a text is passed by with one look. */
  readonly #starts = new Uint8Array(2 ** 24 / 8)

  /** Each as it is, as it stands in an address, and in base64. */
  constructor(secrets: readonly Secret[]) {
    for (const { kind, value } of secrets) {
      const base64 = Buffer.from(value).toString('base64url')
      for (const form of new Set([value, encodeURIComponent(value), base64])) this.#add(form, kind)
    }
  }

  /** Kinds of the secrets that stand in `text`. */
  findIn(text: string): Set<string> {
    const found = new Set<string>()
    const last = text.length - START_LENGTH
    for (let at = 0; at <= last; at++) {
      const bits = bitsOf(text, at)
      if ((this.#starts[bits >> 3]! & (1 << (bits & 7))) === 0) continue
      for (const needle of this.#byStart.get(text.slice(at, at + START_LENGTH)) ?? []) {
        if (text.startsWith(needle.text, at)) found.add(needle.kind)
      }
    }
    return found
  }

  #add(text: string, kind: string): void {
    const start = text.slice(0, START_LENGTH)
    const bits = bitsOf(text, 0)
    this.#starts[bits >> 3]! |= 1 << (bits & 7)
    this.#byStart.set(start, [...(this.#byStart.get(start) ?? []), { text, kind }])
  }
}

const START_LENGTH = 12

function bitsOf(text: string, at: number): number {
  const byte = (offset: number) => text.charCodeAt(at + offset) & 255
  return (byte(0) << 16) | (byte(1) << 8) | byte(2)
}
