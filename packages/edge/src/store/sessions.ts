import type { SessionFacts } from '@postern/shared/identity'
import type { Kysely, Selectable } from 'kysely'
import { tellEdges } from './changes.ts'
import { inTransaction } from './in-transaction.ts'
import { newId } from './new-id.ts'
import type { Database, SessionsTable } from './schema.ts'
import { revokeSshCertificates } from './ssh-certificates.ts'

/** One login of an identity. Times in epoch milliseconds. */
export interface Session extends SessionFacts {
  id: string
  identityId: string
  grantId: string
  clientAddress: string
  createdAt: number
  /** Absolute: nothing prolongs a session. */
  expiresAt: number
  endedAt: number | undefined
  endReason: string | undefined
}

/** What the provider did not say may be left out. */
export type NewSession = Pick<Session, 'identityId' | 'grantId' | 'kind' | 'clientAddress' | 'expiresAt'> &
  Partial<Pick<Session, 'amr' | 'acr' | 'authTime'>>

export async function createSession(
  db: Kysely<Database>,
  session: NewSession,
  now: number,
): Promise<Session> {
  const row = await db
    .insertInto('sessions')
    .values({
      id: newId('ses'),
      identity_id: session.identityId,
      grant_id: session.grantId,
      kind: session.kind,
      client_address: session.clientAddress,
      created_at: now,
      expires_at: session.expiresAt,
      ended_at: null,
      end_reason: null,
      amr: JSON.stringify(session.amr ?? []),
      acr: session.acr ?? null,
      auth_time: session.authTime ?? null,
    })
    .returningAll()
    .executeTakeFirstOrThrow()
  return toSession(row)
}

/** Also finds ended ones: ask `isLive`. */
export async function findSession(db: Kysely<Database>, id: string): Promise<Session | undefined> {
  const row = await db.selectFrom('sessions').selectAll().where('id', '=', id).executeTakeFirst()
  return row && toSession(row)
}

/** Also finds ended ones: ask `isLive`. */
export async function findSessionByGrant(
  db: Kysely<Database>,
  grantId: string,
): Promise<Session | undefined> {
  const row = await db.selectFrom('sessions').selectAll().where('grant_id', '=', grantId).executeTakeFirst()
  return row && toSession(row)
}

/** Ends it, and with it its ssh certificates: servers do not ask whether the session lives.
 *  @returns false when the session is unknown or had ended before; its first reason stays */
export async function endSession(
  db: Kysely<Database>,
  id: string,
  end: { reason: string; now: number },
): Promise<boolean> {
  return inTransaction(db, async (trx) => {
    const result = await trx
      .updateTable('sessions')
      .set({ ended_at: end.now, end_reason: end.reason })
      .where('id', '=', id)
      .where('ended_at', 'is', null)
      .executeTakeFirst()
    // each time: whoever ended it before may not have been heard
    await tellEdges(trx, { kind: 'session_ended', sessionId: id })
    if (result.numUpdatedRows === 0n) return false
    await revokeSshCertificates(trx, { sessionId: id }, end)
    return true
  })
}

const IDS_PER_QUERY = 500

/** Those of them that are there and were not ended; one that is over by age was not. */
export async function listUnendedSessions(
  db: Kysely<Database>,
  ids: readonly string[],
): Promise<Set<string>> {
  const found = new Set<string>()
  for (let start = 0; start < ids.length; start += IDS_PER_QUERY) {
    const rows = await db
      .selectFrom('sessions')
      .select('id')
      .where('id', 'in', ids.slice(start, start + IDS_PER_QUERY))
      .where('ended_at', 'is', null)
      .execute()
    for (const row of rows) found.add(row.id)
  }
  return found
}

/** Also finds ended ones. */
export async function findNewestSession(
  db: Kysely<Database>,
  identityId: string,
): Promise<Session | undefined> {
  const row = await db
    .selectFrom('sessions')
    .selectAll()
    .where('identity_id', '=', identityId)
    .orderBy('created_at', 'desc')
    .limit(1)
    .executeTakeFirst()
  return row && toSession(row)
}

/** Newest first. */
export async function listLiveSessions(
  db: Kysely<Database>,
  identityId: string,
  now: number,
): Promise<Session[]> {
  const rows = await db
    .selectFrom('sessions')
    .selectAll()
    .where('identity_id', '=', identityId)
    .where('ended_at', 'is', null)
    .where('expires_at', '>', now)
    .orderBy('created_at', 'desc')
    .orderBy('id')
    .execute()
  return rows.map(toSession)
}

export function isLive(session: Session, now: number): boolean {
  return session.endedAt === undefined && session.expiresAt > now
}

function toSession(row: Selectable<SessionsTable>): Session {
  return {
    id: row.id,
    identityId: row.identity_id,
    grantId: row.grant_id,
    kind: row.kind,
    clientAddress: row.client_address,
    createdAt: row.created_at,
    expiresAt: row.expires_at,
    endedAt: row.ended_at ?? undefined,
    endReason: row.end_reason ?? undefined,
    amr: JSON.parse(row.amr),
    acr: row.acr ?? undefined,
    authTime: row.auth_time ?? undefined,
  }
}
