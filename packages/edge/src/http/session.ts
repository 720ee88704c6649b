import type { SessionResponse } from '@postern/shared/api/session'
import type { ApiHandler, ApiParts } from './parts.ts'

export function showSession({ roles }: Pick<ApiParts, 'roles'>): ApiHandler {
  return (c) => {
    const { identity, session } = c.get('caller')
    const { issuer, subject, email, groups } = identity
    return c.json({
      identity: { issuer, subject, email, groups: [...groups] },
      session: { id: session.id, createdAt: session.createdAt, expiresAt: session.expiresAt },
      roles: roles.of(identity),
    } satisfies SessionResponse)
  }
}

export function endOwnSession({ login }: Pick<ApiParts, 'login'>): ApiHandler {
  return async (c) => {
    await login.endSession(c.get('caller').session.id, 'logout')
    return c.body(null, 204)
  }
}
