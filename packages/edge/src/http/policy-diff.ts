import { DiffPolicyRequest, type DiffPolicyResponse } from '@postern/shared/api/policy'
import type { Policy } from '@postern/shared/policy'
import { contextOf } from '../policy/context.ts'
import { evaluate } from '../policy/evaluate.ts'
import { readDefaults, readPolicy } from '../policy/read-policy.ts'
import { findIdentity, listLastLogins } from '../store/identities.ts'
import { DEFAULTS, findPolicies, findPolicy } from '../store/policies.ts'
import { listServices, type ServiceRecord } from '../store/services.ts'
import type { ApiHandler, ApiParts } from './parts.ts'
import { readBody } from './read-body.ts'
import { findReadable } from './services.ts'

const SEEN_WITHIN_MS = 30 * 86_400_000
const MAX_PEOPLE = 10_000
const MAX_LISTED = 1_000

/** `POST /v1/policy/diff`: what a document would do to live flows and to the people of the last 30 days. People are
 *  looked at as they were at their last login, as if it had been just now. */
export function diffPolicy(parts: ApiParts): ApiHandler {
  const { clock, db, live, roles } = parts
  return async (c) => {
    const { identity } = c.get('caller')
    const request = await readBody(c, DiffPolicyRequest)
    const policy = (request.service === undefined ? readDefaults : readPolicy)(request.policy)
    if (request.service === undefined) roles.require(identity, 'auditor')
    const only =
      request.service === undefined ? undefined : await findReadable(request.service, identity, parts)
    const services = only ? [only] : await listServices(db)
    const now = clock()
    const people = await listLastLogins(db, { since: now - SEEN_WITHIN_MS, limit: MAX_PEOPLE })
    const answer: DiffPolicyResponse = {
      revision: (await findPolicy(db, only?.id ?? DEFAULTS)).revision,
      flows: [],
      blocked: [],
      admitted: 0,
      people: people.length,
      services: services.length,
    }
    for (const service of services) {
      const decideBoth = await compare(service, policy, only === undefined, db)
      for (const flow of live.where({ serviceId: service.id })) {
        const subject = flow.program ?? (await findIdentity(db, flow.facts.identityId ?? ''))
        if (!subject || !flow.isAdmitted) continue
        const { after } = decideBoth(subject, flow.context, now)
        if (after.allowed || answer.flows.length >= MAX_LISTED) continue
        answer.flows.push({
          flowId: flow.id,
          email: flow.about?.email ?? 'unknown',
          label: service.label,
          clientAddress: flow.context.sourceAddress ?? 'unknown',
          startedAt: flow.startedAt,
          rule: after.rule,
        })
      }
      for (const { identity: person, session, lastLoginAt } of people) {
        const context = { ...contextOf(session, session.clientAddress), signedInAt: now }
        const { before, after } = decideBoth(person, context, now)
        if (!before.allowed && after.allowed) answer.admitted++
        if (!before.allowed || after.allowed || answer.blocked.length >= MAX_LISTED) continue
        const { email } = person
        answer.blocked.push({ email, label: service.label, lastSeenAt: lastLoginAt, rule: after.rule })
      }
    }
    return c.json(answer)
  }
}

type Evaluated = Parameters<typeof evaluate>

async function compare(service: ServiceRecord, changed: Policy, isDefaults: boolean, db: ApiParts['db']) {
  const { defaults, service: own } = await findPolicies(db, service.id)
  const [newDefaults, newOwn] = isDefaults ? [changed, own] : [defaults, changed]
  return (identity: Evaluated[1], context: Evaluated[3], now: number) => ({
    before: evaluate(defaults, identity, { allow: service.allow, policy: own }, context, now),
    after: evaluate(newDefaults, identity, { allow: service.allow, policy: newOwn }, context, now),
  })
}
