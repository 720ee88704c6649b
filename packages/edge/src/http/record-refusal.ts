/** What the API has refused, in the audit log: once, with the code that was answered. */
import { type ErrorCode, PosternError } from '@postern/shared/errors'
import type { Context } from 'hono'
import type { AuditEvent, ConnectorRefused, RequestRefused } from '../audit/event.ts'
import type { AuditLog } from '../audit/record.ts'
import { clientAddress } from './client-address.ts'
import type { ApiEnv } from './parts.ts'

const MAX_PATH_CHARS = 256

/** Records a refusal that has an event of its own kind, which stands in place of the general one. */
export async function recordOwnRefusal(
  c: Context<ApiEnv>,
  event: AuditEvent,
  audit: AuditLog,
): Promise<void> {
  await audit.record(event)
  c.set('isRefusalRecorded', true)
}

/** Never rejects: the request is refused whether that can be written or not. What cannot be written under its name now
 *  is counted without one, and written with the counts once the store is back. */
export async function recordRefusal(
  { error, code }: { error: unknown; code: ErrorCode },
  c: Context<ApiEnv>,
  audit: AuditLog,
): Promise<void> {
  if (c.get('isRefusalRecorded') || isChallenge(error)) return
  await audit
    .record(describeRefusal(error, code, c))
    .catch(() => audit.record({ type: 'request.refused', code, clientAddress: clientAddress(c) }))
    .catch(() => {}) // the edge has ended
}

function describeRefusal(
  error: unknown,
  code: ErrorCode,
  c: Context<ApiEnv>,
): RequestRefused | ConnectorRefused {
  const caller = c.get('caller')
  const connectorId = error instanceof PosternError ? error.details?.connectorId : undefined
  if (!caller && typeof connectorId === 'string') {
    return { type: 'connector.refused', code, connectorId, clientAddress: clientAddress(c) }
  }
  return {
    type: 'request.refused',
    code,
    requestId: c.get('requestId'),
    method: c.req.method,
    path: c.req.path.slice(0, MAX_PATH_CHARS),
    clientAddress: clientAddress(c),
    identityId: caller?.identity.id,
    email: caller?.identity.email,
    sessionId: caller?.session.id,
  }
}

/** Whoever has no nonce yet is given one and asks again: nobody was refused. */
function isChallenge(error: unknown): boolean {
  return error instanceof PosternError && error.details?.error === 'use_dpop_nonce'
}
