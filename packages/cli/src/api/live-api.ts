import {
  type Flow,
  FlowResponse,
  ListFlowsResponse,
  ListLocksResponse,
  ListSessionsResponse,
  type LiveSession,
  type LockRequest,
  LockResponse,
  UnlockResponse,
} from '@postern/shared/api/revocations'
import type { Session } from '../credentials/session.ts'
import type { EdgeApi } from './edge-api.ts'

/** Who is here now, and who shall not be. What takes things back is `EdgeApi.revoke`. */

export async function listFlows(api: EdgeApi, session: Session): Promise<Flow[]> {
  return (await api.call(ListFlowsResponse, { method: 'GET', path: '/v1/flows', session })).flows
}

export async function getFlow(api: EdgeApi, session: Session, id: string): Promise<Flow> {
  const path = `/v1/flows/${encodeURIComponent(id)}`
  return (await api.call(FlowResponse, { method: 'GET', path, session })).flow
}

/** @param email somebody else's, for administrators and auditors */
export async function listSessions(api: EdgeApi, session: Session, email?: string): Promise<LiveSession[]> {
  const path = email === undefined ? '/v1/sessions' : `/v1/sessions?email=${encodeURIComponent(email)}`
  return (await api.call(ListSessionsResponse, { method: 'GET', path, session })).sessions
}

export function lockPerson(api: EdgeApi, session: Session, body: LockRequest): Promise<LockResponse> {
  return api.call(LockResponse, { method: 'POST', path: '/v1/locks', session, body })
}

export async function unlockPerson(api: EdgeApi, session: Session, email: string): Promise<void> {
  const path = `/v1/locks/${encodeURIComponent(email)}`
  await api.call(UnlockResponse, { method: 'DELETE', path, session })
}

export async function listLocks(api: EdgeApi, session: Session): Promise<ListLocksResponse['locks']> {
  return (await api.call(ListLocksResponse, { method: 'GET', path: '/v1/locks', session })).locks
}
