import {
  type DiffPolicyRequest,
  DiffPolicyResponse,
  PolicyHistoryResponse,
  PolicyResponse,
  type ReplacePolicyRequest,
  type TestPolicyRequest,
  TestPolicyResponse,
} from '@postern/shared/api/policy'
import type { Session } from '../credentials/session.ts'
import type { EdgeApi } from './edge-api.ts'

/** Documents are those of a service by its label or full host, or without one the defaults of all services. */

export function getPolicy(api: EdgeApi, session: Session, service?: string): Promise<PolicyResponse> {
  return api.call(PolicyResponse, { method: 'GET', path: policyPath(service), session })
}

export function replacePolicy(
  api: EdgeApi,
  session: Session,
  { service, ...body }: ReplacePolicyRequest & { service?: string | undefined },
): Promise<PolicyResponse> {
  return api.call(PolicyResponse, { method: 'PUT', path: policyPath(service), session, body })
}

export async function listPolicyRevisions(
  api: EdgeApi,
  session: Session,
  service?: string,
): Promise<PolicyResponse[]> {
  const path = `${policyPath(service)}/history`
  return (await api.call(PolicyHistoryResponse, { method: 'GET', path, session })).revisions
}

export function testPolicy(
  api: EdgeApi,
  session: Session,
  body: TestPolicyRequest,
): Promise<TestPolicyResponse> {
  return api.call(TestPolicyResponse, { method: 'POST', path: '/v1/policy/test', session, body })
}

export function diffPolicy(
  api: EdgeApi,
  session: Session,
  body: DiffPolicyRequest,
): Promise<DiffPolicyResponse> {
  return api.call(DiffPolicyResponse, { method: 'POST', path: '/v1/policy/diff', session, body })
}

function policyPath(service: string | undefined): string {
  return service === undefined ? '/v1/policy' : `/v1/services/${encodeURIComponent(service)}/policy`
}
