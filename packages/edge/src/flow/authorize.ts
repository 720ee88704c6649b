import { PosternError } from '@postern/shared/errors'
import type { ServiceLabel } from '@postern/shared/service-label'
import type { Kysely } from 'kysely'
import type { PolicyContext } from '../policy/conditions.ts'
import { decide } from '../policy/decide.ts'
import type { Decision, Denial, PolicySubject } from '../policy/evaluate.ts'
import { explainDenial } from '../policy/explain.ts'
import type { Database } from '../store/schema.ts'
import { findServiceByLabel, type ServiceRecord } from '../store/services.ts'

/** Decides for one flow with the policy as it is written now: it is read again for every flow.
 *  @throws CERTIFICATE_WRONG_SERVICE the certificate is for another service than the host name asked for; a
 *  service that does not exist looks the same */
export async function authorize(
  identity: PolicySubject,
  label: ServiceLabel,
  certificateServiceId: string,
  { db, context, now }: { db: Kysely<Database>; context: PolicyContext; now: number },
): Promise<{ service: ServiceRecord; decision: Decision }> {
  const service = await findServiceByLabel(db, label)
  if (service?.id !== certificateServiceId) {
    throw new PosternError('CERTIFICATE_WRONG_SERVICE', `the certificate is not for the service ${label}`)
  }
  return { service, decision: await decide(db, identity, service, context, now) }
}

/** What a person hears who is not admitted, and also, without a denial, who asks for a service that does not
 *  exist: the two look alike. */
export function denied(host: string, denial: Pick<Denial, 'code'> = { code: 'ACCESS_DENIED' }): PosternError {
  return new PosternError(denial.code, explainDenial(denial, host))
}
