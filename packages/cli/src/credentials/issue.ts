import { generateKey } from '@postern/shared/certs/csr'
import type { ServiceLabel } from '@postern/shared/service-label'
import { type ClientCertificate, saveCertificate } from './cache.ts'
import { callSignedIn, type LoginPolicy } from './fresh.ts'
import type { KnownEdge } from './known-edge.ts'

/** Gets a client certificate for one service, for a key that never leaves this machine, and keeps it.
 *  @throws ACCESS_DENIED when the service does not admit the person · SIGN_IN_REQUIRED */
export async function issueClientCertificate(
  edge: KnownEdge,
  label: ServiceLabel,
  policy: LoginPolicy,
): Promise<ClientCertificate> {
  const { keyPem, csr } = generateKey()
  const issued = await callSignedIn(edge, policy, (api, session) =>
    api.issueClientCertificate(session, { host: `${label}.${edge.domain}`, csr }),
  )
  const certificate = {
    keyPem,
    certificatePem: issued.certificate,
    notAfter: issued.notAfter,
    serviceId: issued.serviceId,
  }
  saveCertificate(edge, label, certificate)
  return certificate
}
