import { PosternError } from '@postern/shared/errors'
import { type AllowList, describeAllowList, type Identity, sameAllowList } from '@postern/shared/identity'
import { parseServiceLabel } from '@postern/shared/service-label'
import type { Kysely } from 'kysely'
import type { Database } from '../store/schema.ts'
import { createService, findServiceByName, type ServiceRecord, updateService } from '../store/services.ts'
import { generateLabel } from './generate-label.ts'
import { readAllowList } from './read-allow-list.ts'

export interface Claim {
  name: string
  label?: string | undefined
  allow?: AllowList | undefined
  replaceAllowList: boolean
}

export interface Claimed {
  service: ServiceRecord
  created: boolean
  /** The service as it was, when its allow-list was replaced. */
  before?: ServiceRecord
}

/** The service of this name and owner: made if there is none, re-used if there is. A restart of a connector never
 *  undoes what was changed meanwhile: lists that differ from the service's own stop it unless told to replace.
 *  @throws ALLOW_LIST_EMPTY · ALLOW_LIST_DIFFERS · ADDRESS_INVALID · DOMAIN_INVALID · LABEL_INVALID · LABEL_TAKEN */
export async function claimService(
  db: Kysely<Database>,
  owner: Identity,
  claim: Claim,
  now: number,
): Promise<Claimed> {
  const allow = claim.allow && readAllowList(claim.allow)
  const existing = await findServiceByName(db, owner.id, claim.name)
  if (existing) return reuse(db, existing, { ...claim, allow }, now)
  if (!allow) {
    throw new PosternError(
      'ALLOW_LIST_EMPTY',
      `the service ${JSON.stringify(claim.name)} is new and admits nobody yet`,
    )
  }
  try {
    return { service: await create(db, owner, { ...claim, allow }, now), created: true }
  } catch (error) {
    if (!(error instanceof PosternError) || error.code !== 'NAME_TAKEN') throw error
    // another connector of the same owner was faster
    return claimService(db, owner, claim, now)
  }
}

async function reuse(
  db: Kysely<Database>,
  service: ServiceRecord,
  claim: Claim,
  now: number,
): Promise<Claimed> {
  if (claim.label !== undefined && claim.label !== service.label) {
    throw new PosternError(
      'LABEL_TAKEN',
      `the service ${JSON.stringify(service.name)} has the label ${service.label}`,
      {
        hint: 'leave --label out, or choose another --name for another service',
      },
    )
  }
  if (!claim.allow || sameAllowList(claim.allow, service.allow)) return { service, created: false }
  if (!claim.replaceAllowList) {
    throw new PosternError(
      'ALLOW_LIST_DIFFERS',
      `${service.label} admits ${describeAllowList(service.allow)}; asked for was ${describeAllowList(claim.allow)}`,
      { details: { current: service.allow, wanted: claim.allow } },
    )
  }
  const changed = await updateService(db, service.id, { allow: claim.allow, revision: service.revision }, now)
  if (!changed)
    throw new PosternError('REVISION_CONFLICT', `the service ${service.label} was deleted meanwhile`)
  return { service: changed.after, before: changed.before, created: false }
}

async function create(
  db: Kysely<Database>,
  owner: Identity,
  claim: Claim & { allow: AllowList },
  now: number,
): Promise<ServiceRecord> {
  const fields = { name: claim.name, type: 'tls' as const, ownerId: owner.id, allow: claim.allow }
  if (claim.label !== undefined) {
    return createService(db, { ...fields, label: parseServiceLabel(claim.label) }, now)
  }
  for (let attempt = 1; ; attempt++) {
    try {
      return await createService(db, { ...fields, label: generateLabel() }, now)
    } catch (error) {
      if (!(error instanceof PosternError) || error.code !== 'LABEL_TAKEN' || attempt === 10) throw error
    }
  }
}
