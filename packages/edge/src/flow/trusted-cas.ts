import { X509Certificate } from 'node:crypto'
import { PosternError } from '@postern/shared/errors'
import type { TrustedClientCa } from '@postern/shared/policy'
import type { ServiceLabel } from '@postern/shared/service-label'
import type { Kysely } from 'kysely'
import { readSubject, type SubjectField } from '../ca/subject.ts'
import { findPolicies, findServiceTrustingCas } from '../store/policies.ts'
import type { Database } from '../store/schema.ts'

/** CAs of others, each known for one service only. */

/** What the service of this label trusts beside ours; empty for nearly all. */
export async function findTrustedCas(
  db: Kysely<Database>,
  label: ServiceLabel,
): Promise<{ serviceId: string; cas: readonly TrustedClientCa[] } | undefined> {
  const serviceId = await findServiceTrustingCas(db, label)
  if (serviceId === undefined) return undefined
  const { service } = await findPolicies(db, serviceId)
  return { serviceId, cas: service.trustedClientCas ?? [] }
}

/** Who holds a certificate of one of these CAs: its subject, and nothing else that stands in it.
 *  @throws CERTIFICATE_REFUSED · CERTIFICATE_EXPIRED */
export function verifyForeignLeaf(
  leaf: X509Certificate,
  cas: readonly TrustedClientCa[],
  now: number,
): { ca: TrustedClientCa; subject: SubjectField[] } {
  const ca = cas.find(({ certificate }) => hasSigned(new X509Certificate(certificate), leaf, now))
  if (!ca) throw refused('was not issued here for this use')
  if (leaf.ca) throw refused('is not one of a person or program')
  if (!leaf.keyUsage?.includes(EKU_CLIENT_AUTH)) throw refused('is for another use')
  if (now < leaf.validFromDate.getTime()) throw refused('is not valid yet')
  if (now > leaf.validToDate.getTime()) {
    throw new PosternError('CERTIFICATE_EXPIRED', 'the certificate has expired', {
      hint: `ask whoever runs the CA ${ca.name} for a new one`,
    })
  }
  return { ca, subject: readSubject(leaf.raw) }
}

const EKU_CLIENT_AUTH = '1.3.6.1.5.5.7.3.2'

/** By this very key: what stands between a CA and its leaves would be trusted without having been named. */
function hasSigned(ca: X509Certificate, leaf: X509Certificate, now: number): boolean {
  const isValid = now >= ca.validFromDate.getTime() && now <= ca.validToDate.getTime()
  return isValid && leaf.checkIssued(ca) && leaf.verify(ca.publicKey)
}

function refused(what: string): PosternError {
  return new PosternError('CERTIFICATE_REFUSED', `the certificate ${what}`)
}
