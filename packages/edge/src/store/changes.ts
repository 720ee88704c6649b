import { type Kysely, sql } from 'kysely'
import * as v from 'valibot'
import type { Database } from './schema.ts'
import { isPostgres } from './take-turns.ts'

/** What edges that share one PostgreSQL tell each other. A change is told in the transaction that makes it, so it is
 *  heard exactly when it is committed, and in the order of the commits. It names ids and nothing about anybody. */

const id = v.pipe(v.string(), v.minLength(1), v.maxLength(64))

/** What has changed. Those that end something say what; the others are read again by whoever hears them. */
const CHANGES = [
  /** List, settings or policy of a service. */
  v.strictObject({ kind: v.literal('service'), serviceId: id }),
  /** The document of all services. */
  v.strictObject({ kind: v.literal('policies') }),
  /** Somebody signed in, perhaps with another address or other groups. */
  v.strictObject({ kind: v.literal('identity'), identityId: id }),
  v.strictObject({ kind: v.literal('service_deleted'), serviceId: id, label: id }),
  v.strictObject({ kind: v.literal('service_revoked'), serviceId: id }),
  v.strictObject({ kind: v.literal('person_revoked'), identityId: id }),
  v.strictObject({ kind: v.literal('person_locked'), identityId: id }),
  v.strictObject({ kind: v.literal('session_ended'), sessionId: id }),
  v.strictObject({ kind: v.literal('certificate_revoked'), serial: id }),
  v.strictObject({ kind: v.literal('workload_revoked'), workloadId: id }),
  v.strictObject({ kind: v.literal('connector_revoked'), connectorId: id, isSuperseded: v.boolean() }),
  /** `by` is an identity. */
  v.strictObject({ kind: v.literal('flow_cut'), flowId: id, by: id }),
] as const

const count = v.pipe(v.number(), v.safeInteger(), v.minValue(0))

/** What edges say about themselves. */
const WORDS = [
  /** Every second: the others know that it is there, and it hears that it is heard. */
  v.strictObject({ kind: v.literal('here') }),
  v.strictObject({ kind: v.literal('left') }),
  /** Have you carried out everything that I said before this? */
  v.strictObject({ kind: v.literal('ask'), ask: count }),
  v.strictObject({ kind: v.literal('done'), to: id, ask: count }),
] as const

const Change = v.variant('kind', CHANGES)
const Message = v.variant('kind', [...CHANGES, ...WORDS])
export type Change = v.InferOutput<typeof Change>
export type Message = v.InferOutput<typeof Message>

export const CHANGES_CHANNEL = 'postern_changes'
/** A setting of each connection of an edge, so that what it says has its name on it. */
export const EDGE_SETTING = 'postern.edge'
/** PostgreSQL takes 8,000 bytes; the longest message has a few hundred. */
const MAX_MESSAGE_CHARACTERS = 1_000

/** Tells the other edges what this transaction changes. On SQLite there are none.
 *  @param trx the transaction that makes the change */
export async function tellEdges(trx: Kysely<Database>, change: Change): Promise<void> {
  if (!isPostgres(trx)) return
  const text = JSON.stringify(change)
  // a pooler may have dropped the name: what has none is not understood, and makes everybody read everything again
  await sql`select pg_notify(${CHANGES_CHANNEL}, coalesce(current_setting(${EDGE_SETTING}, true), '') || ' ' || ${text}::text)`.execute(
    trx,
  )
}

/** @returns undefined for what this edge does not understand: from a newer one, or from somebody else */
export function parseMessage(payload: string): { from: string; message: Message } | undefined {
  if (payload.length > MAX_MESSAGE_CHARACTERS) return undefined
  const [, from, text] = /^([0-9a-f-]{36}) (\{.*\})$/.exec(payload) ?? []
  if (from === undefined || text === undefined) return undefined
  const parsed = v.safeParse(Message, parseJson(text))
  return parsed.success ? { from, message: parsed.output } : undefined
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}
