import { TestPolicyRequest, type TestPolicyResponse } from '@postern/shared/api/policy'
import { parseEmailAddress } from '@postern/shared/email'
import { PosternError } from '@postern/shared/errors'
import { parseWorkloadName, WORKLOAD_PREFIX } from '@postern/shared/workload-name'
import type { PolicyContext } from '../policy/conditions.ts'
import { contextOf } from '../policy/context.ts'
import { decide } from '../policy/decide.ts'
import type { PolicySubject } from '../policy/evaluate.ts'
import { explainDecision } from '../policy/explain.ts'
import { findLastLogin, type LastLogin } from '../store/identities.ts'
import type { ApiHandler, ApiParts } from './parts.ts'
import { readBody } from './read-body.ts'
import { findReadable } from './services.ts'

/** `POST /v1/policy/test`: the decision that a flow would get, without the flow. */
export function testPolicy(parts: ApiParts): ApiHandler {
  const { clock, config, db } = parts
  return async (c) => {
    const request = await readBody(c, TestPolicyRequest)
    const service = await findReadable(request.service, c.get('caller').identity, parts)
    const { who, subject, known } = await findSubject(request, db)
    const context: PolicyContext = {
      ...(known ? contextOf(known.session, known.session.clientAddress) : {}),
      ...definedOf({
        sourceAddress: request.sourceAddress,
        amr: request.amr,
        acr: request.acr,
        signedInAt: request.signedInAt,
        sessionKind: request.sessionKind,
      }),
    }
    const decision = await decide(db, subject, service, context, request.at ?? clock())
    const host = `${service.label}.${config.domain}`
    const answer: TestPolicyResponse = {
      allowed: decision.allowed,
      rule: decision.rule,
      code: decision.allowed ? undefined : decision.code,
      until: decision.allowed ? decision.until : undefined,
      limits: decision.allowed ? { ...decision.limits } : {},
      explanation: explainDecision(decision, who, host),
    }
    return c.json(answer)
  }
}

/** Who is asked about.
 *  @throws REQUEST_INVALID nobody, or two */
async function findSubject(
  request: TestPolicyRequest,
  db: ApiParts['db'],
): Promise<{ who: string; subject: PolicySubject; known?: LastLogin | undefined }> {
  if ((request.identity === undefined) === (request.workload === undefined)) {
    throw new PosternError('REQUEST_INVALID', 'say who asks: identity, or workload')
  }
  if (request.identity === undefined) {
    const workload = parseWorkloadName(request.workload!)
    return { who: `${WORKLOAD_PREFIX}${workload}`, subject: { workload } }
  }
  const email = parseEmailAddress(request.identity)
  const known = await findLastLogin(db, email)
  const subject = {
    email,
    issuer: request.provider ?? known?.identity.issuer ?? '',
    groups: request.groups ?? known?.identity.groups ?? [],
  }
  return { who: email, subject, known }
}

function definedOf<T extends object>(value: T): Partial<T> {
  return Object.fromEntries(Object.entries(value).filter(([, entry]) => entry !== undefined)) as Partial<T>
}
