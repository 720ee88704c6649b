/** The API on one screen. Each handler reads with the schema of `shared/api`, asks the domain, and answers; who may
 *  is said by the middleware in front of it. */
import { Hono } from 'hono'
import { listAudit } from './audit.ts'
import { issueClient } from './certificates.ts'
import { issueConnector, renewConnector } from './connectors.ts'
import { describeEdge } from './edge.ts'
import { cancelTokens, enrollConnector, makeToken } from './enroll-tokens.ts'
import { answerError, answerUnknown } from './errors.ts'
import { guardRequest, requireAdmin, requireOperator, requireSession } from './guards.ts'
import type { ApiEnv, ApiParts } from './parts.ts'
import { claim, list, remove, show, update } from './services.ts'
import { endOwnSession, showSession } from './session.ts'
import { issueSsh } from './ssh-certificates.ts'

export function createApi(parts: ApiParts): Hono<ApiEnv> {
  const session = requireSession(parts)
  const operator = requireOperator(parts)
  const admin = requireAdmin(parts)

  const app = new Hono<ApiEnv>()
  app.use(guardRequest(parts))
  app.get('/v1/edge', describeEdge(parts))
  app.get('/v1/session', session, showSession(parts))
  app.delete('/v1/session', session, endOwnSession(parts))
  app.post('/v1/certificates/client', session, issueClient(parts))
  app.post('/v1/certificates/ssh', session, issueSsh(parts))
  app.get('/v1/services', session, list(parts))
  app.post('/v1/services', session, operator, claim(parts))
  app.get('/v1/services/:ref', session, show(parts))
  app.patch('/v1/services/:ref', session, update(parts))
  app.delete('/v1/services/:ref', session, remove(parts))
  app.post('/v1/services/:ref/enroll-tokens', session, makeToken(parts))
  app.delete('/v1/services/:ref/enroll-tokens', session, cancelTokens(parts))
  app.post('/v1/connectors', session, operator, issueConnector(parts))
  app.post('/v1/connectors/renew', renewConnector(parts)) // proves itself by its old key
  app.post('/v1/connectors/enroll', enrollConnector(parts)) // proves itself by its token
  app.get('/v1/audit', session, admin, listAudit(parts))
  app.get('/healthz', (c) => c.text('ok\n'))
  app.get('/readyz', async (c) => ((await parts.isReady()) ? c.text('ready\n') : c.text('not ready\n', 503)))
  app.notFound(answerUnknown(parts))
  app.onError((error, c) => answerError(parts)(error, c))
  return app
}
