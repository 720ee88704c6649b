import {
  type PolicyHistoryResponse,
  type PolicyResponse,
  ReplacePolicyRequest,
} from '@postern/shared/api/policy'
import { PosternError } from '@postern/shared/errors'
import { readDefaults, readPolicy } from '../policy/read-policy.ts'
import { findIdentity } from '../store/identities.ts'
import {
  DEFAULTS,
  findPolicy,
  listPolicyHistory,
  type PolicyRecord,
  replacePolicy,
} from '../store/policies.ts'
import type { ServiceRecord } from '../store/services.ts'
import { clientAddress } from './client-address.ts'
import type { ApiHandler, ApiParts } from './parts.ts'
import { readBody } from './read-body.ts'
import { findOwn, findReadable } from './services.ts'

const MAX_REVISIONS = 100

/** `GET /v1/policy` · `GET /v1/services/:ref/policy` */
export function showPolicy(parts: ApiParts): ApiHandler {
  return async (c) => {
    const service = await readableScope(c.req.param('ref'), c.get('caller').identity, parts)
    const record = await findPolicy(parts.db, service?.id ?? DEFAULTS)
    return c.json((await describe(record, parts)) satisfies PolicyResponse)
  }
}

/** `GET /v1/policy/history` · `GET /v1/services/:ref/policy/history` */
export function showPolicyHistory(parts: ApiParts): ApiHandler {
  return async (c) => {
    const service = await readableScope(c.req.param('ref'), c.get('caller').identity, parts)
    const records = await listPolicyHistory(parts.db, service?.id ?? DEFAULTS, MAX_REVISIONS)
    const revisions = await Promise.all(records.map((record) => describe(record, parts)))
    return c.json({ revisions } satisfies PolicyHistoryResponse)
  }
}

/** `PUT /v1/policy` · `PUT /v1/services/:ref/policy` */
export function replace(parts: ApiParts): ApiHandler {
  const { audit, clock, db, enforcement } = parts
  return async (c) => {
    const { identity } = c.get('caller')
    const request = await readBody(c, ReplacePolicyRequest)
    const service = await ownScope(c.req.param('ref'), identity, parts)
    const policy = service ? readPolicy(request.policy) : readDefaults(request.policy)
    const change = { policy, revision: request.revision, by: identity.id }
    const { before, after } = await replacePolicy(db, service?.id ?? DEFAULTS, change, clock()).catch(
      async (error: unknown) => {
        // a refusal of ours changes nothing; after every other failure it may be written all the same
        if (!(error instanceof PosternError)) await enforcement.policyUpdated(service)
        throw error
      },
    )
    await enforcement.policyUpdated(service) // first: it holds whether it can be recorded or not
    await audit.record({
      type: 'policy.updated',
      identityId: identity.id,
      email: identity.email,
      serviceId: service?.id,
      label: service?.label,
      revision: after.revision,
      before: before.policy,
      after: after.policy,
      clientAddress: clientAddress(c),
    })
    return c.json((await describe(after, parts)) satisfies PolicyResponse)
  }
}

type Caller = Parameters<typeof findOwn>[1]

/** The service whose document is meant; undefined for the defaults, which administrators and auditors may read. */
async function readableScope(
  ref: string | undefined,
  identity: Caller,
  parts: ApiParts,
): Promise<ServiceRecord | undefined> {
  if (ref !== undefined) return findReadable(ref, identity, parts)
  parts.roles.require(identity, 'auditor')
  return undefined
}

async function ownScope(
  ref: string | undefined,
  identity: Caller,
  parts: ApiParts,
): Promise<ServiceRecord | undefined> {
  if (ref !== undefined) return findOwn(ref, identity, parts)
  parts.roles.require(identity, 'admin')
  return undefined
}

async function describe(record: PolicyRecord, { db }: Pick<ApiParts, 'db'>): Promise<PolicyResponse> {
  const { policy, revision, changedAt, changedBy } = record
  const by = changedBy === undefined ? undefined : await findIdentity(db, changedBy)
  return {
    policy: structuredClone(policy) as PolicyResponse['policy'],
    revision,
    changedAt,
    changedBy: by?.email,
  }
}
