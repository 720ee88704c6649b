import type { Identity } from '@postern/shared/identity'
import type { Logger } from '@postern/shared/logger'
import type { Kysely } from 'kysely'
import type { AuditEvent } from '../audit/event.ts'
import { findIdentity } from '../store/identities.ts'
import { destroyOidcRecord, revokeOidcRecordsByGrant } from '../store/oidc-records.ts'
import type { Database } from '../store/schema.ts'
import type { Session } from '../store/sessions.ts'
import * as store from '../store/sessions.ts'

/** Sessions as everybody else sees them: live or not, and told at once when one ends. A session never gets
 *  longer; it ends by logout, by revocation or at its absolute end. */
export interface Sessions {
  /** The session of a grant with its person, if it is live. */
  findLive(grantId: string): Promise<{ identity: Identity; session: Session } | undefined>
  /** Tells a session that is over by age from one that never was. */
  findByGrant(grantId: string): Promise<Session | undefined>
  isLive(sessionId: string): Promise<boolean>
  /** Ends the session, tells the listeners, deletes its grant and tokens. A second end changes nothing, but is told
   *  as well.
   *  @param reason for the audit log: `logout`, `revoked`, … */
  end(sessionId: string, reason: string): Promise<void>
  /** @returns stops the listening */
  onEnded(listener: SessionEndedListener): () => void
}

/** The audit log, as far as the login writes to it. When it throws, a login does not happen; a session ends
 *  nevertheless. */
export type RecordLogin = (
  event: Extract<AuditEvent, { type: 'login.ok' | 'login.refused' | 'request.refused' | 'session.ended' }>,
) => Promise<void> | void

export type SessionEndedListener = (session: Session, reason: string) => void

export function createSessions(parts: {
  db: Kysely<Database>
  clock: () => number
  log: Logger
  record: RecordLogin
}): Sessions {
  const { db, clock, log } = parts
  const listeners = new Set<SessionEndedListener>()

  async function findLive(grantId: string) {
    const session = await store.findSessionByGrant(db, grantId)
    if (!session || !store.isLive(session, clock())) return undefined
    const identity = await findIdentity(db, session.identityId)
    return identity && { identity, session }
  }

  async function isLive(sessionId: string): Promise<boolean> {
    const session = await store.findSession(db, sessionId)
    return session !== undefined && store.isLive(session, clock())
  }

  async function end(sessionId: string, reason: string): Promise<void> {
    const session = await store.findSession(db, sessionId)
    if (!session) return
    let isNews: boolean
    try {
      // the mark first: from here on no token of the session works, whether its row is still there or not
      isNews = await store.endSession(db, sessionId, { reason, now: clock() })
    } finally {
      // right after the mark, and each time: whoever marked it before may have failed in between, and a mark that
      // failed may be written all the same
      for (const listener of listeners) tell(listener, session, reason, log)
    }
    await revokeOidcRecordsByGrant(db, session.grantId)
    await destroyOidcRecord(db, { model: 'Grant', id: session.grantId })
    if (!isNews) return
    log.info('session.ended', { sessionId, identityId: session.identityId, reason })
    await recordEnd(session, reason)
  }

  async function recordEnd(session: Session, reason: string): Promise<void> {
    const { id: sessionId, identityId } = session
    try {
      const email = (await findIdentity(db, identityId))?.email
      await parts.record({ type: 'session.ended', sessionId, identityId, email, reason })
    } catch (error) {
      log.error('session.end_not_recorded', { sessionId, error: String(error) })
    }
  }

  return {
    findLive,
    findByGrant: (grantId) => store.findSessionByGrant(db, grantId),
    isLive,
    end,
    onEnded(listener) {
      listeners.add(listener)
      return () => listeners.delete(listener)
    },
  }
}

/** One listener that fails must not keep the others from hearing it. */
function tell(listener: SessionEndedListener, session: Session, reason: string, log: Logger): void {
  try {
    listener(session, reason)
  } catch (error) {
    log.error('session.listener_failed', { sessionId: session.id, error: String(error) })
  }
}
