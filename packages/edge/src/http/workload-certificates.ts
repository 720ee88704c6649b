import {
  type ListWorkloadCertificatesResponse,
  PEM_CHAIN_MEDIA_TYPE,
  RENEW_PATH,
  type WorkloadCertificate,
  WorkloadCertificateRequest,
  type WorkloadCertificateResponse,
  type WorkloadCertificateShown,
} from '@postern/shared/api/workloads'
import { type ErrorCode, PosternError } from '@postern/shared/errors'
import { parseWorkloadName, WORKLOAD_PREFIX } from '@postern/shared/workload-name'
import type { Context } from 'hono'
import { CERTIFICATE_REVOKED } from '../flow/reasons.ts'
import { type CertificateRecord, findCertificate, listWorkloadCertificates } from '../store/certificates.ts'
import { findIdentity } from '../store/identities.ts'
import { findServiceById, listServices } from '../store/services.ts'
import { type IssuedWorkload, issuedFacts, issueFirst, renewItself } from '../workloads/certificates.ts'
import type { WorkloadCertificate as FoundCertificate } from '../workloads/find-certificate.ts'
import { spendCertificate } from './certificate-rate.ts'
import { clientAddress } from './client-address.ts'
import type { ApiEnv, ApiHandler, ApiParts } from './parts.ts'
import { readBody, readText } from './read-body.ts'
import { recordOwnRefusal } from './record-refusal.ts'
import { findOwn, readsEverything } from './services.ts'

/** `POST /v1/certificates/workload` */
export function issueWorkload(parts: ApiParts): ApiHandler {
  const { audit, roles, workloadIssuer } = parts
  return async (c) => {
    const { identity } = c.get('caller')
    const request = await readBody(c, WorkloadCertificateRequest)
    if (!roles.of(identity).includes('admin')) roles.require(identity, 'operator')
    const service = await findOwn(request.host, identity, parts)
    const name = parseWorkloadName(request.name)
    const event = {
      kind: 'workload' as const,
      identityId: identity.id,
      email: identity.email,
      clientAddress: clientAddress(c),
      serviceId: service.id,
      label: service.label,
      workload: name,
    }
    await spendCertificate(c, event, parts)
    const issued = await issueFirst(
      { ...request, name, serviceId: service.id, identityId: identity.id },
      workloadIssuer,
      (made, row) => audit.record({ type: 'certificate.issued', ...event, ...issuedFacts(made) }, row),
    )
    return c.json(toAnswer(issued, service.label, parts), 201)
  }
}

/** `POST https://mtls.<domain>/v1/certificates/renew`: the certificate that was shown says who asks. */
export function renewWorkload(parts: ApiParts): ApiHandler {
  const { audit, db, workloadIssuer } = parts
  return async (c) => {
    const leaf = c.env.peer
    if (!leaf) throw new PosternError('CERTIFICATE_REFUSED', 'the client showed no certificate')
    const csr = await readText(c.env.incoming, MAX_CSR_BYTES)
    let asked: Asked | undefined
    const { renewed, previous } = await renewItself(leaf, csr, workloadIssuer, async (known) => {
      asked = await describeAsked(c, known, parts)
      await spendCertificate(c, asked, parts)
    }).catch(async (error: unknown) => {
      if (asked && error instanceof PosternError) await refuse(c, asked, error, parts)
      throw error
    })
    const service = await findServiceById(db, previous.serviceId)
    await audit.record({
      type: 'certificate.issued',
      ...asked!,
      ...issuedFacts(renewed),
      previousSerial: previous.serial,
    })
    const answer = toAnswer(renewed, service?.label ?? 'unknown', parts)
    if (!c.req.header('accept')?.includes(PEM_CHAIN_MEDIA_TYPE)) return c.json(answer, 201)
    return c.body(answer.certificate + answer.chain, 201, { 'Content-Type': PEM_CHAIN_MEDIA_TYPE })
  }
}

const MAX_CSR_BYTES = 8_192

type Asked = Awaited<ReturnType<typeof describeAsked>>

async function describeAsked(
  c: Context<ApiEnv>,
  { serial, serviceId, workload }: FoundCertificate,
  { db }: Pick<ApiParts, 'db'>,
) {
  return {
    kind: 'workload' as const,
    identityId: workload.id,
    email: `${WORKLOAD_PREFIX}${workload.name}`,
    clientAddress: clientAddress(c),
    serviceId,
    label: (await findServiceById(db, serviceId))?.label,
    workload: workload.name,
    shownSerial: serial,
  }
}

/** Writes the refusal down; a lineage of which two hold a key is over at once, with its flows. */
async function refuse(
  c: Context<ApiEnv>,
  asked: Asked,
  { code, details }: { code: ErrorCode; details?: Record<string, unknown> | undefined },
  { audit, enforcement }: ApiParts,
): Promise<void> {
  if (code === 'CERTIFICATE_SUPERSEDED') {
    enforcement.revoked({ identityId: asked.identityId }, CERTIFICATE_REVOKED)
    if (details?.isFirst === true) await audit.record({ type: 'workload.superseded', code, ...asked })
  }
  if (!c.get('isRefusalRecorded')) {
    await recordOwnRefusal(c, { type: 'certificate.refused', ...asked, code }, audit)
  }
}

/** `GET /v1/certificates` */
export function listWorkloads(parts: ApiParts): ApiHandler {
  const { db, roles } = parts
  return async (c) => {
    const { identity } = c.get('caller')
    const own = readsEverything(roles.of(identity))
      ? undefined
      : (await listServices(db, { ownerId: identity.id })).map(({ id }) => id)
    const newest = new Map<string, CertificateRecord>()
    for (const record of await listWorkloadCertificates(db, own)) {
      if (!newest.has(record.workload!.id)) newest.set(record.workload!.id, record)
    }
    const certificates = await Promise.all([...newest.values()].map((record) => describe(record, parts)))
    certificates.sort((a, b) => (`${a.host} ${a.name}` < `${b.host} ${b.name}` ? -1 : 1))
    return c.json({ certificates } satisfies ListWorkloadCertificatesResponse)
  }
}

/** `GET /v1/certificates/:serial` */
export function showWorkload(parts: ApiParts): ApiHandler {
  const { db, roles } = parts
  return async (c) => {
    const { identity } = c.get('caller')
    const serial = c.req.param('serial')!.toLowerCase()
    const record = await findCertificate(db, serial)
    const service = record && (await findServiceById(db, record.serviceId))
    const mayRead = readsEverything(roles.of(identity)) || service?.ownerId === identity.id
    if (!record?.workload || !mayRead) {
      throw new PosternError('CERTIFICATE_UNKNOWN', `there is no certificate ${serial} that you may see`, {
        hint: 'list them: postern certificate list',
      })
    }
    const certificate = await describe(record, parts)
    return c.json({ certificate } satisfies WorkloadCertificateShown)
  }
}

async function describe(
  record: CertificateRecord,
  { db, config, live }: Pick<ApiParts, 'db' | 'config' | 'live'>,
): Promise<WorkloadCertificate> {
  const { id: workloadId, name, renewableUntil } = record.workload!
  const { serial, notBefore, notAfter, issuedAt, renewedBy, revokedAt, revokedReason } = record
  const service = await findServiceById(db, record.serviceId)
  return {
    ...{ serial, name, workloadId, notBefore, notAfter, issuedAt, renewableUntil },
    ...{ renewedBy, revokedAt, revokedReason },
    host: `${service?.label ?? 'deleted'}.${config.domain}`,
    issuedBy: (await findIdentity(db, record.identityId))?.email ?? 'unknown',
    flows: live.where({ identityId: workloadId }).length,
  }
}

function toAnswer(
  issued: IssuedWorkload,
  label: string,
  { config, mtlsOrigin, workloadIssuer }: Pick<ApiParts, 'config' | 'mtlsOrigin' | 'workloadIssuer'>,
): WorkloadCertificateResponse {
  const { certificate, serial, notBefore, notAfter, workload } = issued
  return {
    ...{ certificate, serial, notBefore, notAfter },
    chain: workloadIssuer.authority.certificatePem,
    workloadId: workload.id,
    name: workload.name,
    host: `${label}.${config.domain}`,
    renewableUntil: workload.renewableUntil,
    renewUrl: `${mtlsOrigin()}${RENEW_PATH}`,
  }
}
