import { randomUUID } from 'node:crypto'
import { EDGE_CAS_HEADER } from '@postern/shared/api/session'
import { PosternError } from '@postern/shared/errors'
import { type AnswerParts, answerError } from './errors.ts'
import type { ApiMiddleware, ApiParts } from './parts.ts'

/** Every request: meant for this host, not sent by somebody else's page; every answer, errors too: never cached,
 *  with a fresh nonce for the next proof, and with the CAs that the edge may be known by. */
export function guardRequest(parts: AnswerParts & Pick<ApiParts, 'origin' | 'edgeRoots'>): ApiMiddleware {
  const { origin, login, edgeRoots } = parts
  return async (c, next) => {
    c.set('requestId', randomUUID())
    c.header('Cache-Control', 'no-store')
    c.header('X-Content-Type-Options', 'nosniff')
    for (const [name, value] of Object.entries(login.headersFor())) c.header(name, value)
    const cas = edgeRoots().map(({ fingerprint }) => fingerprint)
    if (cas.length > 0) c.header(EDGE_CAS_HEADER, cas.join(' '))
    const own = new URL(origin())
    const { servername } = c.env.incoming.socket as { servername?: string | false | null }
    const host = c.req.header('host')?.toLowerCase()
    if (host !== own.host || (servername && servername.toLowerCase() !== own.hostname)) {
      const error = new PosternError('REQUEST_INVALID', 'this connection was opened for another host')
      return answerError(parts)(error, c, 421)
    }
    const from = c.req.header('origin')
    if (from !== undefined && from !== own.origin) {
      throw new PosternError('REQUEST_INVALID', 'the API does not answer pages of other origins')
    }
    await next()
  }
}

/** @throws SIGN_IN_REQUIRED · SESSION_ENDED · DPOP_INVALID · CLOCK_OFF */
export function requireSession({ login, onProven }: Pick<ApiParts, 'login' | 'onProven'>): ApiMiddleware {
  return async (c, next) => {
    const { incoming } = c.env
    c.set('caller', await login.verify(incoming))
    onProven(incoming.socket)
    await next()
  }
}

/** After `requireSession`. @throws OPERATOR_REQUIRED */
export function requireOperator({ roles }: Pick<ApiParts, 'roles'>): ApiMiddleware {
  return async (c, next) => {
    roles.require(c.get('caller').identity, 'operator')
    await next()
  }
}

/** After `requireSession`. @throws AUDITOR_REQUIRED */
export function requireAuditor({ roles }: Pick<ApiParts, 'roles'>): ApiMiddleware {
  return async (c, next) => {
    roles.require(c.get('caller').identity, 'auditor')
    await next()
  }
}

/** After `requireSession`, where an administrator cuts or revokes. A stolen session must not be enough for as long as
 *  it lives. Everybody else is left to the handler. @throws LOGIN_TOO_OLD */
export function requireRecentAdmin({
  roles,
  clock,
  config,
}: Pick<ApiParts, 'roles' | 'clock' | 'config'>): ApiMiddleware {
  const { adminLoginAgeMs } = config.limits
  return async (c, next) => {
    const { identity, session } = c.get('caller')
    // what the provider says of its own login can be hours old after every sign-in here, and another would not help
    const isTooOld = adminLoginAgeMs !== undefined && clock() - session.createdAt > adminLoginAgeMs
    if (isTooOld && roles.of(identity).includes('admin')) {
      throw new PosternError(
        'LOGIN_TOO_OLD',
        'your login is too old for what cuts or revokes as administrator',
      )
    }
    await next()
  }
}

/** After `requireSession`. @throws ADMIN_REQUIRED */
export function requireAdmin({ roles }: Pick<ApiParts, 'roles'>): ApiMiddleware {
  return async (c, next) => {
    roles.require(c.get('caller').identity, 'admin')
    await next()
  }
}
