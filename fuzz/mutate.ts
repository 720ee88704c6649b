import type { Random } from './random.ts'

const SCRATCH = Buffer.alloc(256 * 1024)
const EDGES = [0, 1, 2, 0x0f, 0x10, 0x7f, 0x80, 0xfe, 0xff]

/** One to four edits of the bytes. The result lies in one shared buffer and lives until the next call. */
export function mutateBytes(original: Buffer, random: Random): Buffer {
  let length = original.copy(SCRATCH)
  for (let edits = 1 + random.below(4); edits > 0 && length > 0; edits--) {
    const at = random.below(length)
    const count = Math.min(1 + random.below(8), length - at)
    switch (random.below(7)) {
      case 0:
        SCRATCH[at] = random.below(256)
        break
      case 1:
        SCRATCH[at]! ^= 1 << random.below(8)
        break
      case 2:
        SCRATCH[at] = random.of(EDGES)
        break
      case 3: // without some bytes
        SCRATCH.copyWithin(at, at + count, length)
        length -= count
        break
      case 4: // with some more
        SCRATCH.copyWithin(at + count, at, length)
        SCRATCH.fill(random.below(256), at, at + count)
        length += count
        break
      case 5: // a piece of it once more
        SCRATCH.copyWithin(at + count, at, length)
        length += count
        break
      case 6:
        length = at
    }
  }
  return SCRATCH.subarray(0, length)
}

/** Characters that mean something to somebody: to YAML, JSON, DNS, mail, terminals, or to `toLowerCase`. */
const CHARACTERS = [
  ...'aZ09.-_@+:/\\\'"{}[]#&*!|>%?,;=~` \n\t\r',
  ...[
    '\0',
    '\u001b',
    '\u0085',
    '\u00a0',
    '\u00e4',
    '\u00df',
    '\u0130',
    '\u0131',
    '\u017f',
    '\u2028',
    '\u202e',
  ],
  ...[
    '\u212a',
    '\u3002',
    '\ud800',
    '\ufeff',
    '\uff0e',
    '\uff20',
    '\u{1f600}',
    '--',
    '..',
    'xn--',
    '://',
    ': ',
  ],
]

/** One to four edits of the text; `words` are put in as a whole. Now and then it gets very long. */
export function mutateText(original: string, random: Random, words: readonly string[] = CHARACTERS): string {
  let text = original
  for (let edits = 1 + random.below(4); edits > 0; edits--) {
    const at = random.below(text.length + 1)
    const count = 1 + random.below(random.oneIn(4) ? 40 : 3)
    switch (random.below(6)) {
      case 0:
        text = text.slice(0, at) + random.of(CHARACTERS) + text.slice(at + 1)
        break
      case 1:
        text = text.slice(0, at) + random.of(CHARACTERS) + text.slice(at)
        break
      case 2:
        text = text.slice(0, at) + random.of(words) + text.slice(at)
        break
      case 3:
        text = text.slice(0, at) + text.slice(at + count)
        break
      case 4: {
        const times = random.oneIn(500) ? random.below(1_000) : 1 + random.below(3)
        text = text.slice(0, at) + text.slice(at, at + count).repeat(times) + text.slice(at)
        break
      }
      case 5:
        text = random.oneIn(4) ? text.slice(0, at) : text.slice(0, at) + text.slice(at).toUpperCase()
    }
    if (text.length > 100_000) text = text.slice(0, 100_000)
  }
  return text
}
