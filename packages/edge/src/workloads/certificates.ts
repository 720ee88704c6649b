/** How a program that cannot run ours gets its certificate, and keeps it: an operator makes the first one, and each
 *  renews itself, up to an end that is fixed with the first. */
import type { KeyObject, X509Certificate } from 'node:crypto'
import { formatDuration } from '@postern/shared/duration'
import { PosternError } from '@postern/shared/errors'
import type { WorkloadName } from '@postern/shared/workload-name'
import type { Kysely } from 'kysely'
import type { Authority } from '../ca/authorities.ts'
import { issueWorkloadCertificate } from '../ca/issue-workload.ts'
import type { IssuedLeaf } from '../ca/leaf.ts'
import { readCsrPublicKey, spkiHash } from '../ca/public-key.ts'
import {
  certificateRow,
  type KeepIssued,
  type NewCertificate,
  renewAgainOrEnd,
  renewCertificate,
  type WorkloadFacts,
} from '../store/certificates.ts'
import { newId } from '../store/new-id.ts'
import type { Database } from '../store/schema.ts'
import { findServiceById } from '../store/services.ts'
import {
  findWorkloadCertificate,
  refuseRevokedWorkload,
  superseded,
  type WorkloadCertificate,
} from './find-certificate.ts'

export interface WorkloadIssuer {
  db: Kysely<Database>
  domain: string
  authority: Authority
  /** More than one while a new one takes over. */
  readonly cas: readonly X509Certificate[]
  clock: () => number
  backdateMs: number
  /** No certificate is valid for longer. */
  maxTtlMs: number
  /** Nor is a lineage. */
  maxLifetimeMs: number
}

export interface IssuedWorkload extends IssuedLeaf {
  workload: WorkloadFacts
}

const DEFAULT_TTL_MS = 30 * 86_400_000
const MIN_TTL_MS = 60_000

/** The first certificate of a new lineage.
 *  @throws REQUEST_INVALID a time that is out of bounds, or a bad CSR */
export async function issueFirst(
  request: {
    name: WorkloadName
    serviceId: string
    /** Who asks. */
    identityId: string
    csr: string
    ttlMs?: number | undefined
    lifetimeMs?: number | undefined
  },
  issuer: Omit<WorkloadIssuer, 'cas'>,
  keep: KeepIssued<IssuedWorkload>,
): Promise<IssuedWorkload> {
  const now = issuer.clock()
  const lifetimeMs = readTime(
    'the lifetime',
    request.lifetimeMs ?? issuer.maxLifetimeMs,
    issuer.maxLifetimeMs,
  )
  const wanted = request.ttlMs ?? Math.min(DEFAULT_TTL_MS, issuer.maxTtlMs)
  const ttlMs = Math.min(readTime('the time to live', wanted, issuer.maxTtlMs), lifetimeMs)
  const publicKey = await readCsrPublicKey(request.csr)
  const workload = { id: newId('wld'), name: request.name, renewableUntil: wholeSecond(now + lifetimeMs) }
  const issued = await issue({ ...request, workload, publicKey, notAfter: now + ttlMs }, issuer)
  const made = { ...issued, workload }
  await keep(made, certificateRow(toRecord(issued, { ...request, workload }, now)))
  return made
}

export interface WorkloadRenewal {
  renewed: IssuedWorkload
  previous: WorkloadCertificate
}

/** Replaces a certificate that its holder has shown by one for a new key.
 *  @param known told what the certificate was found to be, before anything is refused for it
 *  @throws CERTIFICATE_REFUSED · CERTIFICATE_EXPIRED · CERTIFICATE_REVOKED · SERVICE_UNKNOWN · REQUEST_INVALID ·
 *  CERTIFICATE_NOT_RENEWABLE its lineage is as old as it may become · CERTIFICATE_SUPERSEDED it was renewed before: two
 *  hold the key, so the whole lineage ends */
export async function renewItself(
  leaf: X509Certificate,
  csr: string,
  issuer: WorkloadIssuer,
  known: (previous: WorkloadCertificate) => Promise<void>,
): Promise<WorkloadRenewal> {
  const { db, domain, cas, clock } = issuer
  const now = clock()
  const previous = await findWorkloadCertificate(leaf, { db, domain, workloadCas: cas, now })
  await known(previous)
  refuseRevokedWorkload(previous)
  const { serviceId, workload } = previous
  if (!(await findServiceById(db, serviceId))) {
    throw new PosternError('SERVICE_UNKNOWN', 'the service of this certificate was deleted')
  }
  const publicKey = await readCsrPublicKey(csr)
  if (spkiHash(publicKey) === previous.keyHash) {
    throw new PosternError('REQUEST_INVALID', 'the request is for the key that the certificate has already', {
      hint: 'make a new key for each renewal: a stolen key is good until then and no longer',
    })
  }
  // one that was renewed before has another answer below
  if (previous.renewedBy === undefined && previous.notAfter >= workload.renewableUntil) {
    throw notRenewable(workload)
  }
  const ttlMs = previous.notAfter - previous.issuedAt
  const notAfter = Math.min(now + ttlMs, workload.renewableUntil)
  const issued = await issue({ serviceId, workload, publicKey, notAfter }, issuer)
  const record = toRecord(issued, previous, now)
  if (!(await renewCertificate(db, previous.serial, record))) {
    const outcome = await renewAgainOrEnd(db, previous.serial, record, now)
    // which of the two ended it is recorded once
    if (!outcome.isAnsweredAgain) throw superseded(workload, outcome.isFirst)
  }
  return { renewed: { ...issued, workload }, previous }
}

function issue(
  request: { serviceId: string; workload: WorkloadFacts; publicKey: KeyObject; notAfter: number },
  { authority, backdateMs, clock, domain }: Omit<WorkloadIssuer, 'cas'>,
): Promise<IssuedLeaf> {
  const { serviceId, workload, publicKey, notAfter } = request
  return issueWorkloadCertificate(
    authority,
    { domain, serviceId, name: workload.name, publicKey, notAfter, backdateMs },
    clock(),
  )
}

/** For the audit log. */
export function issuedFacts({ serial, keyHash, notBefore, notAfter, workload }: IssuedWorkload) {
  const { id: workloadId, renewableUntil } = workload
  return { certificateSerial: serial, keyHash, workloadId, notBefore, notAfter, renewableUntil }
}

function toRecord(
  issued: IssuedLeaf,
  of: { identityId: string; serviceId: string; workload: WorkloadFacts },
  issuedAt: number,
): NewCertificate {
  const { serial, keyHash, notBefore, notAfter } = issued
  const { identityId, serviceId, workload } = of
  return {
    ...{ serial, kind: 'workload', keyHash, identityId, serviceId, workload, notBefore, notAfter, issuedAt },
    ...{ sessionId: undefined, connectorId: undefined, machine: undefined },
  }
}

/** @throws REQUEST_INVALID */
function readTime(what: string, ms: number, max: number): number {
  if (ms >= MIN_TTL_MS && ms <= max) return ms
  const bounds = `${formatDuration(MIN_TTL_MS)} to ${formatDuration(max)}`
  throw new PosternError('REQUEST_INVALID', `${what} of a certificate must be ${bounds} at this edge`, {
    hint: 'ask for another one; certificates.workload_* in the configuration of the edge are its bounds',
  })
}

function notRenewable({ name, renewableUntil }: WorkloadFacts): PosternError {
  const end = new Date(renewableUntil).toISOString()
  return new PosternError(
    'CERTIFICATE_NOT_RENEWABLE',
    `the certificates of ${name} end for good at ${end}, and this one is valid until then`,
  )
}

/** Certificates count whole seconds. */
function wholeSecond(ms: number): number {
  return ms - (ms % 1_000)
}
