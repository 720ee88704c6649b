import type { X509Certificate } from 'node:crypto'
import { PosternError } from '@postern/shared/errors'
import type { Kysely } from 'kysely'
import { workloadSubjectAltName } from '../ca/issue-workload.ts'
import { verifyLeaf } from '../ca/verify-leaf.ts'
import {
  type CertificateRecord,
  findCertificate,
  SUPERSEDED,
  type WorkloadFacts,
} from '../store/certificates.ts'
import type { Database } from '../store/schema.ts'

/** A workload's certificate as it was issued. */
export type WorkloadCertificate = CertificateRecord & { workload: WorkloadFacts }

/** The record of a workload's certificate, revoked or not, when everything in the leaf is as it was issued.
 *  @param note told what is known so far, before anything that depends on it is read
 *  @throws CERTIFICATE_REFUSED · CERTIFICATE_EXPIRED */
export async function findWorkloadCertificate(
  leaf: X509Certificate,
  parts: { db: Kysely<Database>; domain: string; workloadCas: readonly X509Certificate[]; now: number },
  note: (known: { serial: string; serviceId?: string; workload?: WorkloadFacts }) => void = () => {},
): Promise<WorkloadCertificate> {
  const { serial, keyHash } = verifyLeaf(leaf, parts.workloadCas, parts.now)
  note({ serial })
  const certificate = await findCertificate(parts.db, serial)
  if (certificate?.kind !== 'workload' || !certificate.workload || certificate.keyHash !== keyHash) {
    throw new PosternError('CERTIFICATE_REFUSED', 'the certificate is not known here')
  }
  const { serviceId, workload } = certificate
  note({ serial, serviceId, workload })
  const expected = workloadSubjectAltName({ domain: parts.domain, serviceId, name: workload.name })
  if (leaf.subjectAltName !== expected) {
    throw new PosternError('CERTIFICATE_REFUSED', 'the certificate names somebody or something else')
  }
  return { ...certificate, workload }
}

/** @throws CERTIFICATE_REVOKED · CERTIFICATE_SUPERSEDED */
export function refuseRevokedWorkload({ workload, revokedAt, revokedReason }: WorkloadCertificate): void {
  if (revokedAt === undefined) return
  if (revokedReason === SUPERSEDED) throw superseded(workload)
  throw new PosternError('CERTIFICATE_REVOKED', `the certificate of ${workload.name} was revoked`, {
    hint: 'ask the owner of the service for a new one: postern certificate issue',
  })
}

/** Two hold a key of this workload.
 *  @param isFirst this has ended the lineage just now */
export function superseded({ name }: Pick<WorkloadFacts, 'name'>, isFirst = false): PosternError {
  return new PosternError(
    'CERTIFICATE_SUPERSEDED',
    `a certificate of ${name} was renewed with a key that is in two places`,
    isFirst ? { details: { isFirst } } : {},
  )
}
