import type { ExportAuditResponse, ListAuditResponse } from '@postern/shared/api/audit'
import { parseEmailAddress } from '@postern/shared/email'
import { isErrorCode } from '@postern/shared/errors'
import { WORKLOAD_PREFIX } from '@postern/shared/workload-name'
import * as v from 'valibot'
import { parseEventType } from '../audit/event.ts'
import { listAuditRecords } from '../audit/list.ts'
import { isHostUser } from '../host-user.ts'
import { readAuditLog } from '../store/audit-events.ts'
import { listWorkloadIds } from '../store/certificates.ts'
import { listIdentitiesByEmail } from '../store/identities.ts'
import { listServiceIdsByLabel } from '../store/services.ts'
import { clientAddress } from './client-address.ts'
import type { ApiHandler, ApiParts } from './parts.ts'
import { readValue } from './read-body.ts'

const whole = (max: number) =>
  v.pipe(v.string(), v.regex(/^\d{1,15}$/, 'is not a whole number'), v.transform(Number), v.maxValue(max))
const text = (max: number) => v.pipe(v.string(), v.nonEmpty(), v.maxLength(max))
/** Epoch milliseconds. */
const time = whole(Number.MAX_SAFE_INTEGER)

const ListQuery = v.strictObject({
  after: v.optional(whole(Number.MAX_SAFE_INTEGER)),
  limit: v.optional(whole(1_000), '100'),
  type: v.optional(v.string()),
  code: v.optional(
    v.pipe(
      v.string(),
      v.check((code) => isErrorCode(code), 'is not an error code'),
    ),
  ),
  flow: v.optional(text(64)),
  identity: v.optional(text(320)),
  service: v.optional(text(256)),
  since: v.optional(time),
  until: v.optional(time),
})

const ExportQuery = v.strictObject({
  after: v.optional(whole(Number.MAX_SAFE_INTEGER), '0'),
  until: v.optional(whole(Number.MAX_SAFE_INTEGER)),
  limit: v.optional(v.pipe(whole(1_000), v.minValue(1)), '500'),
})

type AuditParts = Pick<ApiParts, 'db' | 'config' | 'auditReads'>

export function listAudit({ db, config, auditReads }: AuditParts): ApiHandler {
  return async (c) => {
    const query = c.req.query()
    const { identity, service, flow, type, ...page } = readValue(ListQuery, query)
    const filter = {
      ...page,
      type: type === undefined ? undefined : parseEventType(type),
      flowId: flow,
      identityIds: identity === undefined ? undefined : await findIdentities(identity),
      serviceIds: service === undefined ? undefined : await findServices(service),
    }
    await auditReads.note({ ...c.get('caller'), clientAddress: clientAddress(c), how: 'list', query })
    return c.json({ records: await listAuditRecords(db, filter) } satisfies ListAuditResponse)
  }

  async function findIdentities(name: string): Promise<string[]> {
    if (name.startsWith('idn_') || name.startsWith('wld_')) return [name]
    if (name.startsWith(WORKLOAD_PREFIX)) return listWorkloadIds(db, name.slice(WORKLOAD_PREFIX.length))
    const address = isHostUser(name) ? name : parseEmailAddress(name)
    const found = await listIdentitiesByEmail(db, address)
    return found.map(({ id }) => id)
  }

  /** Also one that is deleted. */
  async function findServices(name: string): Promise<string[]> {
    if (name.startsWith('svc_')) return [name]
    const host = name.toLowerCase()
    const end = `.${config.domain}`
    return listServiceIdsByLabel(db, host.endsWith(end) ? host.slice(0, -end.length) : host)
  }
}

export function exportAudit({ db, auditReads }: AuditParts): ApiHandler {
  return async (c) => {
    const query = c.req.query()
    const page = readValue(ExportQuery, query)
    await auditReads.note({ ...c.get('caller'), clientAddress: clientAddress(c), how: 'export', query })
    return c.json({ records: await readAuditLog(db, page) } satisfies ExportAuditResponse)
  }
}
