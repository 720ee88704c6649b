import { PosternError } from '@postern/shared/errors'
import { EMPTY_POLICY, type Policy } from '@postern/shared/policy'
import type { ServiceLabel } from '@postern/shared/service-label'
import type { Kysely, Selectable } from 'kysely'
import { tellEdges } from './changes.ts'
import { inTransaction } from './in-transaction.ts'
import { documentsOf } from './policy-documents.ts'
import type { Database, PoliciesTable } from './schema.ts'
import { takeTurn } from './take-turns.ts'

/** Id of a service, or `defaults` for the document of all services. */
export type PolicyScope = string
export const DEFAULTS: PolicyScope = 'defaults'

export interface PolicyRecord {
  policy: Policy
  /** 0 for a document that nobody wrote. */
  revision: number
  changedAt?: number
  /** Identity id. */
  changedBy?: string
}

const UNWRITTEN: PolicyRecord = { policy: EMPTY_POLICY, revision: 0 }

/** Both documents that decide about a service. Which revision counts is asked each time; a document that was read
 *  before at that revision is not read again, since one can be of megabytes. */
export async function findPolicies(
  db: Kysely<Database>,
  serviceId: string,
): Promise<{ defaults: Policy; service: Policy }> {
  const written = await db
    .selectFrom('policies')
    .select(['scope', 'revision', 'changed_at'])
    .where('scope', 'in', [DEFAULTS, serviceId])
    .execute()
  const documents = documentsOf(db)
  const read = async (scope: PolicyScope): Promise<Policy> => {
    const row = written.find((found) => found.scope === scope)
    const known = row && documents.get(row)
    const found = row && !known ? await findRow(db, scope) : undefined
    return known ?? (found ? documents.keep(found) : EMPTY_POLICY)
  }
  return { defaults: await read(DEFAULTS), service: await read(serviceId) }
}

/** Id of the service of this label, if its document trusts CAs of others. */
export async function findServiceTrustingCas(
  db: Kysely<Database>,
  label: ServiceLabel,
): Promise<string | undefined> {
  const [row] = await db
    .selectFrom('policies')
    .innerJoin('services', 'services.id', 'policies.scope')
    .select('services.id')
    .where('services.label', '=', label)
    .where('services.deleted_at', 'is', null)
    .where('policies.trusts_cas', '=', 1)
    .limit(1)
    .execute()
  return row?.id
}

export async function findPolicy(db: Kysely<Database>, scope: PolicyScope): Promise<PolicyRecord> {
  const row = await findRow(db, scope)
  return row ? toRecord(row) : UNWRITTEN
}

function findRow(db: Kysely<Database>, scope: PolicyScope) {
  return db.selectFrom('policies').selectAll().where('scope', '=', scope).executeTakeFirst()
}

/** Writes a document over the one at `revision` and keeps that one in the history.
 *  @throws REVISION_CONFLICT it is no longer at that revision */
export async function replacePolicy(
  db: Kysely<Database>,
  scope: PolicyScope,
  { policy, revision, by }: { policy: Policy; revision: number; by: string },
  now: number,
): Promise<{ before: PolicyRecord; after: PolicyRecord }> {
  return inTransaction(db, async (trx) => {
    await takeTurn(trx, 'policies')
    const before = await findPolicy(trx, scope)
    if (before.revision !== revision) {
      throw new PosternError(
        'REVISION_CONFLICT',
        `the policy is at revision ${before.revision}, not ${revision} any more`,
        { details: { revision: before.revision } },
      )
    }
    const row = {
      scope,
      policy: JSON.stringify(policy),
      revision: revision + 1,
      changed_at: now,
      changed_by: by,
      trusts_cas: policy.trustedClientCas ? 1 : 0,
    }
    const { scope: _scope, ...changed } = row
    await trx
      .insertInto('policies')
      .values(row)
      .onConflict((conflict) => conflict.column('scope').doUpdateSet(changed))
      .execute()
    await trx.insertInto('policy_history').values(row).execute()
    await tellEdges(trx, scope === DEFAULTS ? { kind: 'policies' } : { kind: 'service', serviceId: scope })
    return { before, after: toRecord(row) }
  })
}

/** Every revision of a document, the newest first. */
export async function listPolicyHistory(
  db: Kysely<Database>,
  scope: PolicyScope,
  limit: number,
): Promise<PolicyRecord[]> {
  const rows = await db
    .selectFrom('policy_history')
    .selectAll()
    .where('scope', '=', scope)
    .orderBy('revision', 'desc')
    .limit(limit)
    .execute()
  return rows.map(toRecord)
}

function toRecord(row: Selectable<PoliciesTable>): PolicyRecord {
  return {
    policy: JSON.parse(row.policy),
    revision: row.revision,
    changedAt: row.changed_at,
    changedBy: row.changed_by,
  }
}
