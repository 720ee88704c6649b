import { randomBytes } from 'node:crypto'
import { readFile, rename, rm } from 'node:fs/promises'
import path from 'node:path'
import { PosternError } from '@postern/shared/errors'
import * as v from 'valibot'
import { writePrivateFile } from '../private-file.ts'

/** Which CAs there are of each kind, and what each does when. Nothing is switched: every edge reads the same dates and
 *  finds by its clock who signs and who is believed. Lies beside the keys, `DATA_DIR/ca/generations.json`; without the
 *  file there is one CA of each kind, for good. */
const Generation = v.strictObject({
  /** Of its files: `NAME.pem` and `NAME.key`. */
  name: v.pipe(v.string(), v.regex(/^[a-z][a-z0-9-]{0,63}$/)),
  /** Epoch milliseconds. Before that it is believed and does not sign. */
  signsFrom: v.pipe(v.number(), v.safeInteger()),
  /** From then on it is nobody's CA any more. */
  trustedUntil: v.nullable(v.pipe(v.number(), v.safeInteger())),
})
export type Generation = v.InferOutput<typeof Generation>

const Kinds = v.record(
  v.pipe(v.string(), v.regex(/^[a-z-]{1,32}$/)),
  v.pipe(v.array(Generation), v.minLength(1), v.maxLength(64)),
)
const MAX_FILE_BYTES = 256 * 1024

/** `next`: believed already. `signs`. `trusted`: has signed, and is believed still. `retired`: is believed no more. */
export type GenerationState = 'next' | 'signs' | 'trusted' | 'retired'

/** The CAs of one kind, oldest first. */
export class Generations {
  readonly all: readonly Generation[]

  constructor(all: readonly Generation[]) {
    this.all = all
  }

  /** The newest whose time has come. */
  signing(now: number): Generation {
    return this.all.findLast(({ signsFrom }) => signsFrom <= now) ?? this.all[0]!
  }

  trusted(now: number): Generation[] {
    return this.all.filter((generation) => this.stateOf(generation, now) !== 'retired')
  }

  stateOf(generation: Generation, now: number): GenerationState {
    if (generation === this.signing(now)) return 'signs'
    if (generation.trustedUntil !== null && generation.trustedUntil <= now) return 'retired'
    return generation.signsFrom > now ? 'next' : 'trusted'
  }

  /** With one more, which takes over; all before it end after the overlap. */
  succeededBy(name: string, { signsFrom, overlapMs }: { signsFrom: number; overlapMs: number }): Generations {
    const trustedUntil = signsFrom + overlapMs
    const before = this.all.map((generation) => ({
      ...generation,
      trustedUntil: generation.trustedUntil ?? trustedUntil,
    }))
    return new Generations([...before, { name, signsFrom, trustedUntil: null }])
  }
}

export type GenerationsByKind = ReadonlyMap<string, Generations>

export function generationsFile(dataDir: string): string {
  return path.join(dataDir, 'ca', 'generations.json')
}

/** @throws STATE_INVALID */
export async function readGenerations(dataDir: string): Promise<GenerationsByKind> {
  const file = generationsFile(dataDir)
  try {
    const text = await readFile(file, 'utf8')
    if (text.length > MAX_FILE_BYTES) throw new Error('it is too large')
    const kinds = Object.entries(v.parse(Kinds, JSON.parse(text)))
    return new Map(kinds.map(([kind, all]) => [kind, new Generations(all)]))
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'ENOENT') return new Map()
    throw new PosternError('STATE_INVALID', `${file} cannot be read: ${(cause as Error).message}`, {
      hint: 'bring the folder back from a backup, or copy it from another edge',
      cause,
    })
  }
}

/** Replaces the file as a whole: an edge that reads it finds one or the other. */
export async function writeGenerations(dataDir: string, kinds: GenerationsByKind): Promise<void> {
  const file = generationsFile(dataDir)
  const draft = `${file}.new-${randomBytes(6).toString('hex')}`
  const content = Object.fromEntries([...kinds].map(([kind, { all }]) => [kind, all]))
  try {
    await writePrivateFile(draft, `${JSON.stringify(content, null, 2)}\n`)
    await rename(draft, file)
  } finally {
    await rm(draft, { force: true })
  }
}

/** Where a kind was never rotated there is its first CA, or its first key where it is none of a CA. */
export function generationsOf(kinds: GenerationsByKind, kind: string): Generations {
  const name = kind === 'flow-identity' ? kind : `${kind}-ca`
  return kinds.get(kind) ?? new Generations([{ name, signsFrom: 0, trustedUntil: null }])
}
