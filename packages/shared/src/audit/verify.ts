import * as v from 'valibot'
import { PosternError } from '../errors.ts'
import { type Checkpoint, findCheckpoint, isSignedCheckpoint } from './checkpoint.ts'
import {
  CHAIN_STARTED,
  CHECKPOINT,
  type ExportedRecord,
  formatExportLine,
  hashRecord,
  type LinkedRecord,
  NOTHING_BEFORE,
} from './record.ts'

/** Checks an export line by line, with no more memory than its chains need, and stops at the first record that is not
 *  what was written. It trusts nothing in the file: not its order, not its numbers, not the keys it names. */

/** A chain is an edge. */
const MAX_CHAINS = 10_000

const Whole = v.pipe(v.number(), v.safeInteger(), v.minValue(0))
const Hash = v.pipe(v.string(), v.regex(/^[0-9a-f]{64}$/))
const Facts = { at: Whole, type: v.pipe(v.string(), v.regex(/^[\w.]{1,64}$/)), event: v.looseObject({}) }
const Line = v.union([
  v.strictObject({
    seq: Whole,
    chain: v.pipe(v.string(), v.regex(/^[\w-]{1,64}$/)),
    position: v.pipe(Whole, v.minValue(1)),
    ...Facts,
    previous: Hash,
    hash: Hash,
  }),
  v.strictObject({ seq: Whole, ...Facts }),
])

export interface VerifyOptions {
  /** Kept elsewhere. */
  checkpoints?: readonly Checkpoint[]
  /** Keys that may sign, as `ed25519:…`; empty: whose signatures these are is not asked. */
  signers?: readonly string[]
  /** Whether the first record of a chain may be any: the file is a part of a log. */
  isPart?: boolean
}

/** What is proven of one chain. */
export interface VerifiedChain {
  chain: string
  from: number
  to: number
  /** Of the last record. */
  hash: string
  /** The last position that a signature in the file covers; undefined: none. */
  signedTo: number | undefined
}

export interface VerifiedExport {
  records: number
  /** Records from before the chain: nothing is proven of them. */
  unlinked: number
  chains: VerifiedChain[]
}

export class ExportVerifier {
  readonly #chains = new Map<string, VerifiedChain>()
  readonly #kept = new Map<string, Map<number, Checkpoint>>()
  readonly #signers: ReadonlySet<string>
  readonly #isPart: boolean
  #lines = 0
  #unlinked = 0
  #seq = -1

  /** @throws AUDIT_BROKEN a checkpoint is not signed, or by another key, or contradicts another one */
  constructor({ checkpoints = [], signers = [], isPart = false }: VerifyOptions = {}) {
    this.#signers = new Set(signers)
    this.#isPart = isPart
    for (const checkpoint of checkpoints) this.#keep(checkpoint)
  }

  /** @param line without its line break
   *  @throws AUDIT_BROKEN */
  add(line: string): void {
    this.#lines += 1
    const record = this.#read(line)
    if (record.seq <= this.#seq) throw this.#broken(record, 'its number is not higher than the one before it')
    this.#seq = record.seq
    if (record.chain === undefined) return this.#addUnlinked(record)
    this.#follow(record)
    if (hashRecord(record) !== record.hash) throw this.#broken(record, 'its content does not fit its hash')
    this.#compare(record)
    const known = this.#chains.get(record.chain)!
    known.to = record.position
    known.hash = record.hash
    if (record.type === CHECKPOINT) known.signedTo = this.#readCheckpoint(record)
  }

  /** After the last line. @throws AUDIT_BROKEN */
  finish(): VerifiedExport {
    for (const [chain, checkpoints] of this.#kept) {
      const found = this.#chains.get(chain)
      const last = Math.max(...checkpoints.keys())
      if (!found)
        throw broken(`chain ${chain} is missing, a checkpoint knows its position ${last}`, { chain })
      if (found.to >= last) continue
      const what = `chain ${chain} ends at position ${found.to}, a checkpoint knows position ${last}`
      throw broken(`${what}: the end was cut off`, { chain, position: found.to + 1 })
    }
    for (const { chain, from, signedTo } of this.#chains.values()) {
      if (this.#signers.size === 0 || from > 1 || signedTo !== undefined) continue
      throw broken(`chain ${chain} has no checkpoint that the named key has signed`, { chain })
    }
    return { records: this.#lines, unlinked: this.#unlinked, chains: [...this.#chains.values()] }
  }

  #read(line: string): ExportedRecord {
    let value: unknown
    try {
      value = JSON.parse(line)
    } catch {
      throw this.#broken({}, 'it is not JSON, or not whole')
    }
    const result = v.safeParse(Line, value)
    if (!result.success) throw this.#broken({}, 'it is not a record')
    // valibot makes objects anew, and the order of their members is part of what was written
    const event = JSON.stringify((value as { event: unknown }).event)
    const record = { ...result.output, event } as ExportedRecord
    if (formatExportLine(record) !== line)
      throw this.#broken(record, 'it is not written as the edge writes it')
    return record
  }

  #addUnlinked(record: ExportedRecord): void {
    this.#unlinked += 1
    if (this.#chains.size > 0)
      throw this.#broken(record, 'it has no chain, though records before it have one')
  }

  #follow(record: LinkedRecord & { seq: number }): void {
    const { chain, position, previous } = record
    const known = this.#chains.get(chain)
    if (!known) return this.#begin(record)
    if (position !== known.to + 1) {
      const what = `position ${known.to + 1} was expected`
      throw this.#broken(
        record,
        position > known.to
          ? `${what}: a record before it was removed or moved`
          : `${what}: it was moved or is there twice`,
      )
    }
    if (previous !== known.hash) throw this.#broken(record, 'it does not follow the record before it')
  }

  #begin(record: LinkedRecord & { seq: number }): void {
    const { chain, position, previous, type } = record
    if (this.#chains.size >= MAX_CHAINS) throw this.#broken(record, 'there are too many chains')
    const isStart = position === 1 && previous === NOTHING_BEFORE && type === CHAIN_STARTED
    const isKnown = this.#kept.get(chain)?.get(position - 1)?.hash === previous
    if (position === 1 ? !isStart : !(this.#isPart || type === CHECKPOINT || isKnown)) {
      throw this.#broken(record, 'the records before it are missing')
    }
    this.#chains.set(chain, { chain, from: position, to: position - 1, hash: previous, signedTo: undefined })
  }

  /** With what is kept elsewhere. */
  #compare(record: LinkedRecord & { seq: number }): void {
    const kept = this.#kept.get(record.chain)
    const before = kept?.get(record.position - 1)
    if (before && before.hash !== record.previous) {
      throw this.#broken(record, 'what is before it is not what a checkpoint says')
    }
    const checkpoint = kept?.get(record.position)
    if (checkpoint && checkpoint.hash !== record.hash) {
      throw this.#broken(record, 'it is not what a checkpoint says')
    }
  }

  /** @returns the position up to which it has signed */
  #readCheckpoint(record: LinkedRecord & { seq: number }): number {
    const checkpoint = findCheckpoint(JSON.parse(record.event))
    if (
      checkpoint?.chain !== record.chain ||
      checkpoint.position !== record.position - 1 ||
      checkpoint.hash !== record.previous
    ) {
      throw this.#broken(record, 'it is a checkpoint of something else')
    }
    const problem = this.#problemOf(checkpoint)
    if (problem) throw this.#broken(record, problem)
    return checkpoint.position
  }

  #keep(checkpoint: Checkpoint): void {
    const { chain, position, hash } = checkpoint
    const what = `the checkpoint of chain ${chain} at position ${position}`
    const problem = this.#problemOf(checkpoint)
    if (problem) throw broken(`${what} cannot be believed: ${problem}`, { chain, position })
    const kept = this.#kept.get(chain) ?? new Map<number, Checkpoint>()
    if ((kept.get(position)?.hash ?? hash) !== hash) {
      throw broken(`${what} is there twice, and they differ: the log was written anew`, { chain, position })
    }
    this.#kept.set(chain, kept.set(position, checkpoint))
  }

  #problemOf(checkpoint: Checkpoint): string | undefined {
    if (this.#signers.size > 0 && !this.#signers.has(checkpoint.signer)) return 'another key has signed it'
    return isSignedCheckpoint(checkpoint) ? undefined : 'its signature is wrong'
  }

  #broken(
    record: { seq?: number; chain?: string | undefined; position?: number },
    reason: string,
  ): PosternError {
    const { seq, chain, position } = record
    const names = [
      ...(seq === undefined ? [] : [`seq ${seq}`]),
      ...(chain === undefined ? [] : [`chain ${chain}`, `position ${position}`]),
    ]
    const where = names.length > 0 ? ` (${names.join(', ')})` : ''
    return broken(`line ${this.#lines}${where}: ${reason}`, { line: this.#lines, seq, chain, position })
  }
}

function broken(message: string, details: Record<string, unknown>): PosternError {
  return new PosternError('AUDIT_BROKEN', message, { details })
}
