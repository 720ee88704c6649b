import type { SessionResponse } from '@postern/shared/api/session'
import type { ApiHandler, ApiParts } from './parts.ts'

export function showSession({ roles }: Pick<ApiParts, 'roles'>): ApiHandler {
  return (c) => {
    const { identity, session } = c.get('caller')
    const { issuer, subject, email, groups } = identity
    const { id, createdAt, expiresAt, kind, amr, acr, authTime } = session
    return c.json({
      identity: { issuer, subject, email, groups: [...groups] },
      session: { id, createdAt, expiresAt, kind, amr: [...amr], acr, authTime },
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
