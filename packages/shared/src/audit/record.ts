import { createHash } from 'node:crypto'

/** One record of the audit log and how records hang together: each has the hash of the one before in its own. The edge
 *  writes them, `postern audit verify` reads them; docs/audit.md says the same in words, and
 *  `packages/shared/vectors/audit-chain.json` in numbers. */

/** What a record's hash is made of. `event` is JSON as the edge has written it. */
export interface LinkedContent {
  chain: string
  position: number
  at: number
  type: string
  /** The hash of the record before, 64 hex digits. */
  previous: string
  event: string
}

export interface LinkedRecord extends LinkedContent {
  hash: string
}

/** Of one record in an export. Without a link it is older than the chain. */
export type ExportedRecord = { seq: number } & (
  | LinkedRecord
  | { at: number; type: string; event: string; chain?: undefined }
)

/** What the first record of a chain has before it. */
export const NOTHING_BEFORE: string = '0'.repeat(64)
/** Type of the first record of every chain. */
export const CHAIN_STARTED = 'audit.chain_started'
/** Type of a record that signs everything before it. */
export const CHECKPOINT = 'audit.checkpoint'

/** No line break can be in what stands before the event, so no two records have one text. */
export function hashRecord({ chain, position, at, type, previous, event }: LinkedContent): string {
  const text = ['postern-audit/1', chain, position, at, type, previous, event].join('\n')
  return createHash('sha256').update(text).digest('hex')
}

/** One line of an export, without the line break. A reader makes it again from what it has understood and compares:
 *  so nothing in a line is left out of the proof. */
export function formatExportLine(record: ExportedRecord): string {
  const { seq, at, type, event } = record
  if (record.chain === undefined) return `${JSON.stringify({ seq, at, type }).slice(0, -1)},"event":${event}}`
  const { chain, position, previous, hash } = record
  const head = JSON.stringify({ seq, chain, position, at, type, previous, hash })
  return `${head.slice(0, -1)},"event":${event}}`
}
