/** The API on one screen. Each handler reads with the schema of `shared/api`, asks the domain, and answers; who may
 *  is said by the middleware in front of it. */
import { RENEW_PATH } from '@postern/shared/api/workloads'
import { Hono } from 'hono'
import { exportAudit, listAudit } from './audit.ts'
import { issueClient } from './certificates.ts'
import { issueConnector, renewConnector } from './connectors.ts'
import { showCrl } from './crl.ts'
import { describeEdge, showFlowIdentityKeys } from './edge.ts'
import { cancelTokens, enrollConnector, makeToken } from './enroll-tokens.ts'
import { answerError, answerUnknown } from './errors.ts'
import { explainFlow } from './flow-explanation.ts'
import {
  guardRequest,
  requireAdmin,
  requireAuditor,
  requireOperator,
  requireRecentAdmin,
  requireSession,
} from './guards.ts'
import { listFlows, listSessions, showFlow } from './live.ts'
import type { ApiEnv, ApiParts } from './parts.ts'
import { replace, showPolicy, showPolicyHistory } from './policy.ts'
import { diffPolicy } from './policy-diff.ts'
import { testPolicy } from './policy-test.ts'
import { lock, revoke, showKrl, showLocks, unlock } from './revocations.ts'
import { claim, list, remove, show, update } from './services.ts'
import { endOwnSession, showSession } from './session.ts'
import { issueSsh } from './ssh-certificates.ts'
import {
  acceptTargetKeys,
  issueHostCertificates,
  reportTargetKeys,
  showAuthorities,
  showHostKeys,
} from './ssh-hosts.ts'
import { issueWorkload, listWorkloads, renewWorkload, showWorkload } from './workload-certificates.ts'

/** What is served where a certificate is asked for: workloads renew themselves, and nothing else. */
export function createMtlsApi(parts: ApiParts): Hono<ApiEnv> {
  const app = new Hono<ApiEnv>()
  app.use(guardRequest({ ...parts, origin: parts.mtlsOrigin }))
  app.post(RENEW_PATH, renewWorkload(parts))
  app.notFound(answerUnknown(parts))
  app.onError((error, c) => answerError(parts)(error, c))
  return app
}

export function createApi(parts: ApiParts): Hono<ApiEnv> {
  const session = requireSession(parts)
  const operator = requireOperator(parts)
  const auditor = requireAuditor(parts)
  const admin = requireAdmin(parts)
  const recent = requireRecentAdmin(parts)

  const app = new Hono<ApiEnv>()
  app.use(guardRequest(parts))
  app.get('/v1/edge', describeEdge(parts))
  app.get('/v1/session', session, showSession(parts))
  app.delete('/v1/session', session, endOwnSession(parts))
  app.post('/v1/certificates/client', session, issueClient(parts))
  app.post('/v1/certificates/ssh', session, issueSsh(parts))
  app.post('/v1/certificates/workload', session, recent, issueWorkload(parts))
  app.get('/v1/certificates', session, listWorkloads(parts))
  app.get('/v1/certificates/:serial', session, showWorkload(parts))
  app.get('/v1/services', session, list(parts))
  app.post('/v1/services', session, operator, claim(parts))
  app.get('/v1/services/:ref', session, show(parts))
  app.patch('/v1/services/:ref', session, recent, update(parts))
  app.delete('/v1/services/:ref', session, recent, remove(parts))
  app.post('/v1/services/:ref/enroll-tokens', session, makeToken(parts))
  app.delete('/v1/services/:ref/enroll-tokens', session, cancelTokens(parts))
  app.post('/v1/connectors', session, operator, issueConnector(parts))
  app.post('/v1/connectors/renew', renewConnector(parts)) // proves itself by its old key
  app.post('/v1/connectors/enroll', enrollConnector(parts)) // proves itself by its token
  app.get('/v1/audit', session, auditor, listAudit(parts))
  app.get('/v1/flows/:id/explanation', session, explainFlow(parts))
  app.get('/v1/audit/export', session, auditor, exportAudit(parts))
  app.get('/v1/policy', session, auditor, showPolicy(parts))
  app.put('/v1/policy', session, admin, recent, replace(parts))
  app.get('/v1/policy/history', session, auditor, showPolicyHistory(parts))
  app.post('/v1/policy/test', session, testPolicy(parts))
  app.post('/v1/policy/diff', session, diffPolicy(parts))
  app.get('/v1/services/:ref/policy', session, showPolicy(parts))
  app.put('/v1/services/:ref/policy', session, recent, replace(parts))
  app.get('/v1/services/:ref/policy/history', session, showPolicyHistory(parts))
  app.post('/v1/connectors/ssh-host-certificates', issueHostCertificates(parts)) // by its current key
  app.post('/v1/connectors/ssh-host-keys', reportTargetKeys(parts)) // by its current key
  app.get('/v1/ssh/krl', showKrl(parts)) // for servers
  app.get('/v1/ssh/cas', showAuthorities(parts)) // for servers
  app.get('/v1/crl/:file', showCrl(parts)) // for whoever checks certificates
  app.get('/v1/flow-identity-keys', showFlowIdentityKeys(parts)) // for services
  app.post('/v1/revocations', session, recent, revoke(parts))
  app.get('/v1/locks', session, auditor, showLocks(parts))
  app.post('/v1/locks', session, admin, recent, lock(parts))
  app.delete('/v1/locks/:email', session, admin, recent, unlock(parts))
  app.get('/v1/flows', session, listFlows(parts))
  app.get('/v1/flows/:id', session, showFlow(parts))
  app.get('/v1/sessions', session, listSessions(parts))
  app.get('/v1/services/:ref/ssh-host-keys', session, showHostKeys(parts))
  app.post('/v1/services/:ref/ssh-host-keys/accept', session, acceptTargetKeys(parts))
  app.get('/healthz', (c) => c.text('ok\n'))
  app.get('/readyz', async (c) => ((await parts.isReady()) ? c.text('ready\n') : c.text('not ready\n', 503)))
  app.notFound(answerUnknown(parts))
  app.onError((error, c) => answerError(parts)(error, c))
  return app
}
