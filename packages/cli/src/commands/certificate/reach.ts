import type { WorkloadCertificate } from '@postern/shared/api/workloads'
import { PosternError } from '@postern/shared/errors'
import { getWorkloadCertificate, listWorkloadCertificates } from '../../api/certificate-api.ts'
import type { EdgeApi } from '../../api/edge-api.ts'
import type { Session } from '../../credentials/session.ts'

/** A workload's certificate by its serial, or by the name of the workload where only one has it.
 *  @throws CERTIFICATE_UNKNOWN · USAGE_INVALID several have this name */
export async function findCertificate(
  api: EdgeApi,
  session: Session,
  given: string,
): Promise<WorkloadCertificate> {
  if (/^[0-9a-f]{32}$/i.test(given)) return getWorkloadCertificate(api, session, given)
  const all = await listWorkloadCertificates(api, session)
  const named = all.filter(({ name }) => name === given)
  const usable = named.filter((certificate) => stateOf(certificate) === 'valid')
  const [found, ...more] = usable.length > 0 ? usable : named
  if (!found) {
    throw new PosternError('CERTIFICATE_UNKNOWN', `there is no certificate of ${JSON.stringify(given)}`, {
      hint: 'list them: postern certificate list',
    })
  }
  if (more.length === 0) return found
  const serials = [found, ...more].map(({ serial, host }) => `${serial} (${host})`).join(', ')
  throw new PosternError('USAGE_INVALID', `several certificates have the name ${given}`, {
    hint: `say which by its serial: ${serials}`,
  })
}

export function stateOf({ revokedAt, notAfter }: WorkloadCertificate, now = Date.now()): string {
  if (revokedAt !== undefined) return 'revoked'
  return notAfter <= now ? 'expired' : 'valid'
}
