import type { AllowList } from '@postern/shared/identity'
import type { Kysely } from 'kysely'
import { findPolicies } from '../store/policies.ts'
import type { Database } from '../store/schema.ts'
import type { PolicyContext } from './conditions.ts'
import { type Decision, evaluate, type PolicySubject } from './evaluate.ts'

/** Decides with the documents as they are written now: flows, certificates of both kinds and the changes that are
 *  carried to live flows all ask here. */
export async function decide(
  db: Kysely<Database>,
  identity: PolicySubject,
  service: { id: string; allow: AllowList },
  context: PolicyContext,
  now: number,
): Promise<Decision> {
  const policies = await findPolicies(db, service.id)
  return evaluate(
    policies.defaults,
    identity,
    { allow: service.allow, policy: policies.service },
    context,
    now,
  )
}
