import { ClientCertificateRequest, type ClientCertificateResponse } from '@postern/shared/api/certificates'
import { labelOfHost, normalizeHost } from '@postern/shared/service-label'
import { denied } from '../flow/authorize.ts'
import { contextOf } from '../policy/context.ts'
import { decide } from '../policy/decide.ts'
import { certificateRow } from '../store/certificates.ts'
import { findServiceByLabel } from '../store/services.ts'
import { spendCertificate } from './certificate-rate.ts'
import { clientAddress } from './client-address.ts'
import type { ApiHandler, ApiParts } from './parts.ts'
import { readBody } from './read-body.ts'
import { recordOwnRefusal } from './record-refusal.ts'

/** `POST /v1/certificates/client`: only for whom the service admits now. */
export function issueClient(parts: ApiParts): ApiHandler {
  const { audit, clock, config, db, issuing } = parts
  return async (c) => {
    const { identity, session } = c.get('caller')
    const request = await readBody(c, ClientCertificateRequest)
    const publicKey = await issuing.readCsrPublicKey(request.csr)
    const host = normalizeHost(request.host)
    const label = labelOfHost(host, config.domain) ?? host
    const service = await findServiceByLabel(db, label)
    const context = contextOf(session, clientAddress(c))
    const decision = service && (await decide(db, identity, service, context, clock()))
    const event = {
      kind: 'client' as const,
      identityId: identity.id,
      email: identity.email,
      clientAddress: clientAddress(c),
      serviceId: service?.id,
      label: service?.label ?? label.slice(0, 63),
    }
    await spendCertificate(c, event, parts)
    if (!service || !decision?.allowed) {
      const unknown = { code: 'ACCESS_DENIED' as const, rule: 'no such service' }
      const denial = decision?.allowed === false ? decision : unknown
      const { code, rule } = denial
      await recordOwnRefusal(c, { type: 'certificate.refused', ...event, code, rule }, audit)
      throw denied(`${event.label}.${config.domain}`, denial)
    }
    const now = clock()
    const { ttlMs, backdateMs } = config.certificates
    const issued = await issuing.issueClient(
      {
        domain: config.domain,
        email: identity.email,
        serviceId: service.id,
        publicKey,
        sessionExpiresAt: session.expiresAt,
        ttlMs,
        backdateMs,
      },
      now,
    )
    const { certificate, serial, keyHash, notBefore, notAfter } = issued
    const row = certificateRow({
      serial,
      kind: 'client',
      keyHash,
      identityId: identity.id,
      sessionId: session.id,
      serviceId: service.id,
      connectorId: undefined,
      machine: undefined,
      notBefore,
      notAfter,
      issuedAt: now,
    })
    const facts = { certificateSerial: serial, keyHash, sessionId: session.id, notBefore, notAfter }
    await audit.record({ type: 'certificate.issued', ...event, serviceId: service.id, ...facts }, row)
    const answer: ClientCertificateResponse = {
      certificate,
      serial,
      notBefore,
      notAfter,
      serviceId: service.id,
    }
    return c.json(answer, 201)
  }
}
