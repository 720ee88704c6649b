import {
  ClaimServiceRequest,
  type ClaimServiceResponse,
  type ListServicesResponse,
  type Service,
  type ServiceResponse,
  UpdateServiceRequest,
} from '@postern/shared/api/services'
import type { SshSettings } from '@postern/shared/api/ssh'
import { PosternError } from '@postern/shared/errors'
import type { Identity } from '@postern/shared/identity'
import { labelOfHost, normalizeHost } from '@postern/shared/service-label'
import type { Role } from '../policy/roles.ts'
import { changeSshSettings } from '../policy/ssh-profile.ts'
import { claimService } from '../services/claim.ts'
import { readAllowList } from '../services/read-allow-list.ts'
import { countOpenEnrollTokens } from '../store/enroll-tokens.ts'
import { findIdentity } from '../store/identities.ts'
import {
  deleteService,
  findServiceByLabel,
  findServiceByName,
  listServices,
  type ServiceRecord,
  updateService,
} from '../store/services.ts'
import { findHostKeys } from '../store/ssh-host-keys.ts'
import type { ApiHandler, ApiParts } from './parts.ts'
import { readBody } from './read-body.ts'

/** `POST /v1/services` */
export function claim(parts: ApiParts): ApiHandler {
  return async (c) => {
    const { identity } = c.get('caller')
    const request = await readBody(c, ClaimServiceRequest)
    const replaced =
      request.replaceAllowList && (await findServiceByName(parts.db, identity.id, request.name))
    const claimIt = () => claimService(parts.db, identity, request, parts.clock())
    const claimed = await (replaced ? enforcingWhatIsWritten(replaced.id, parts, claimIt) : claimIt())
    const { service, before, created } = claimed
    const event = {
      identityId: identity.id,
      email: identity.email,
      serviceId: service.id,
      label: service.label,
    }
    if (created) {
      await parts.audit.record({
        type: 'service.created',
        ...event,
        name: service.name,
        allow: service.allow,
      })
    }
    if (before) {
      await parts.enforcement.serviceUpdated(service) // first: it holds whether it can be recorded or not
      await parts.audit.record({
        type: 'service.updated',
        ...event,
        before: seen(before),
        after: seen(service),
      })
    }
    const answer: ClaimServiceResponse = { service: await describe(service, parts), created }
    return c.json(answer, created ? 201 : 200)
  }
}

/** `GET /v1/services` */
export function list(parts: ApiParts): ApiHandler {
  return async (c) => {
    const { identity } = c.get('caller')
    const seesAll = readsEverything(parts.roles.of(identity))
    const records = await listServices(parts.db, seesAll ? {} : { ownerId: identity.id })
    const services = await Promise.all(records.map((record) => describe(record, parts)))
    return c.json({ services } satisfies ListServicesResponse)
  }
}

/** `GET /v1/services/:ref` */
export function show(parts: ApiParts): ApiHandler {
  return async (c) => {
    const service = await findReadable(c.req.param('ref')!, c.get('caller').identity, parts)
    return c.json({ service: await describe(service, parts) } satisfies ServiceResponse)
  }
}

/** `PATCH /v1/services/:ref` */
export function update(parts: ApiParts): ApiHandler {
  return async (c) => {
    const { identity } = c.get('caller')
    const { allow, ssh, ...change } = await readBody(c, UpdateServiceRequest)
    const found = await findOwn(c.req.param('ref')!, identity, parts)
    const allowed = allow && readAllowList(allow)
    const changeSsh =
      ssh && ((before: SshSettings) => changeSshSettings(before, ssh, whoChanges(found, identity, parts)))
    const changed = await enforcingWhatIsWritten(found.id, parts, () =>
      updateService(parts.db, found.id, { ...change, allow: allowed, changeSsh }, parts.clock()),
    )
    if (!changed) throw unknownService(found.label)
    await parts.enforcement.serviceUpdated(changed.after)
    await parts.audit.record({
      type: 'service.updated',
      identityId: identity.id,
      email: identity.email,
      serviceId: found.id,
      label: found.label,
      before: seen(changed.before),
      after: seen(changed.after),
    })
    return c.json({ service: await describe(changed.after, parts) } satisfies ServiceResponse)
  }
}

/** `DELETE /v1/services/:ref` */
export function remove(parts: ApiParts): ApiHandler {
  return async (c) => {
    const { identity } = c.get('caller')
    const found = await findOwn(c.req.param('ref')!, identity, parts)
    const deleted = await enforcingWhatIsWritten(found.id, parts, () =>
      deleteService(parts.db, found.id, parts.clock()),
    )
    if (!deleted) throw unknownService(found.label)
    parts.enforcement.serviceDeleted(deleted)
    await parts.audit.record({
      type: 'service.deleted',
      identityId: identity.id,
      email: identity.email,
      serviceId: deleted.id,
      label: deleted.label,
      name: deleted.name,
    })
    return c.body(null, 204)
  }
}

/** A refusal of ours changes nothing; after every other failure the change may be written all the same. */
async function enforcingWhatIsWritten<T>(
  serviceId: string,
  { enforcement }: Pick<ApiParts, 'enforcement'>,
  change: () => Promise<T>,
): Promise<T> {
  try {
    return await change()
  } catch (error) {
    if (!(error instanceof PosternError)) await enforcement.serviceUncertain(serviceId)
    throw error
  }
}

function whoChanges(
  { label }: ServiceRecord,
  identity: Identity,
  { config, roles }: Pick<ApiParts, 'config' | 'roles'>,
) {
  return { label, domain: config.domain, isAdmin: roles.of(identity).includes('admin') }
}

/** By label or full host; of somebody else only for an admin, and it looks like one that does not exist. */
export async function findOwn(
  ref: string,
  identity: Identity,
  { db, config, roles }: Pick<ApiParts, 'db' | 'config' | 'roles'>,
): Promise<ServiceRecord> {
  const service = await findByRef(ref, { db, config })
  const mayTouch = service && (service.ownerId === identity.id || roles.of(identity).includes('admin'))
  if (!mayTouch) throw unknownService(ref)
  return service
}

/** The same, and an auditor may read it too. */
export async function findReadable(
  ref: string,
  identity: Identity,
  { db, config, roles }: Pick<ApiParts, 'db' | 'config' | 'roles'>,
): Promise<ServiceRecord> {
  const service = await findByRef(ref, { db, config })
  const mayRead = service && (service.ownerId === identity.id || readsEverything(roles.of(identity)))
  if (!mayRead) throw unknownService(ref)
  return service
}

function findByRef(
  ref: string,
  { db, config }: Pick<ApiParts, 'db' | 'config'>,
): Promise<ServiceRecord | undefined> {
  const name = normalizeHost(ref)
  return findServiceByLabel(db, labelOfHost(name, config.domain) ?? name)
}

/** Auditors and admins. */
export function readsEverything(roles: readonly Role[]): boolean {
  return roles.includes('admin') || roles.includes('auditor')
}

function unknownService(ref: string): PosternError {
  return new PosternError('SERVICE_UNKNOWN', `you have no service ${JSON.stringify(ref)}`)
}

async function describe(
  record: ServiceRecord,
  {
    db,
    clock,
    config,
    connectors,
    live,
    sshAuthorities,
  }: Pick<ApiParts, 'db' | 'clock' | 'config' | 'connectors' | 'live' | 'sshAuthorities'>,
): Promise<Service> {
  const owner = await findIdentity(db, record.ownerId)
  const hostKeys = await findHostKeys(db, record.id)
  const { allow } = record
  return {
    id: record.id,
    label: record.label,
    host: `${record.label}.${config.domain}`,
    name: record.name,
    type: record.type,
    owner: owner?.email ?? 'unknown',
    allow: { ...allow, emailDomains: [...allow.emailDomains], emailAddresses: [...allow.emailAddresses] },
    revision: record.revision,
    createdAt: record.createdAt,
    connectors: connectors.ofService(record.id).length,
    targets: connectors
      .ofService(record.id)
      .flatMap(({ machine, target }) => (target ? [{ machine, ...target }] : [])),
    flows: live.where({ serviceId: record.id }).length,
    sshUserCa: sshAuthorities.user.line,
    sshHostCa: sshAuthorities.host.line,
    sshUserCas: sshAuthorities.lines('user'),
    sshHostCas: sshAuthorities.lines('host'),
    ssh: record.ssh,
    sshHostKeys: { keys: [...(hostKeys?.keys ?? [])], pending: [...(hostKeys?.pending ?? [])] },
    enrollTokens: await countOpenEnrollTokens(db, record.id, clock()),
  }
}

function seen({ name, allow, ssh }: ServiceRecord) {
  return { name, allow, ssh }
}
