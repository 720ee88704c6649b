import {
  ConnectorCertificateRequest,
  type ConnectorCertificateResponse,
  RenewConnectorRequest,
} from '@postern/shared/api/certificates'
import { PosternError } from '@postern/shared/errors'
import { type ConnectorCertificate, issueForNewProcess, renewByOldKey } from '../connectors/certificates.ts'
import { findCertificate } from '../store/certificates.ts'
import { findIdentity } from '../store/identities.ts'
import { findServiceById } from '../store/services.ts'
import { clientAddress } from './client-address.ts'
import type { ApiHandler, ApiParts } from './parts.ts'
import { readBody } from './read-body.ts'

/** `POST /v1/connectors` */
export function issueConnector(parts: ApiParts): ApiHandler {
  const { audit, connectorIssuer, db } = parts
  return async (c) => {
    const { identity } = c.get('caller')
    const request = await readBody(c, ConnectorCertificateRequest)
    const service = await findServiceById(db, request.serviceId)
    if (service?.ownerId !== identity.id) {
      throw new PosternError('SERVICE_UNKNOWN', 'you have no such service')
    }
    const subject = {
      kind: 'connector' as const,
      identityId: identity.id,
      email: identity.email,
      clientAddress: clientAddress(c),
      serviceId: service.id,
      label: service.label,
      machine: request.machine,
    }
    const issued = await issueForNewProcess(
      { ...request, identityId: identity.id },
      connectorIssuer,
      ({ serial: certificateSerial, keyHash, connectorId, notBefore, notAfter }, row) => {
        const facts = { certificateSerial, keyHash, connectorId, notBefore, notAfter }
        return audit.record({ type: 'certificate.issued', ...subject, ...facts }, row)
      },
    )
    return c.json(toAnswer(issued), 201)
  }
}

/** `POST /v1/connectors/renew` */
export function renewConnector(parts: ApiParts): ApiHandler {
  const { audit, connectorIssuer, db } = parts
  return async (c) => {
    const { jws } = await readBody(c, RenewConnectorRequest)
    const renewal = await renewByOldKey(jws, connectorIssuer).catch(async (error: unknown) => {
      if (error instanceof PosternError) await endSuperseded(error, clientAddress(c), parts)
      throw error
    })
    const { renewed, previous } = renewal
    const owner = await findIdentity(db, previous.identityId)
    await audit.record({
      type: 'connector.renewed',
      connectorId: renewed.connectorId,
      serviceId: previous.serviceId,
      identityId: previous.identityId,
      email: owner?.email,
      machine: previous.machine,
      certificateSerial: renewed.serial,
      previousSerial: previous.serial,
      notAfter: renewed.notAfter,
      clientAddress: clientAddress(c),
    })
    return c.json(toAnswer(renewed), 201)
  }
}

/** Ends what is attached, when this renewal has shown that two processes have the key. */
async function endSuperseded(
  error: PosternError,
  clientAddress: string,
  { audit, connectors, db, enforcement }: ApiParts,
): Promise<void> {
  const { connectorId, serial } = error.details ?? {}
  if (error.code !== 'CONNECTOR_SUPERSEDED' || typeof connectorId !== 'string') return
  const attachedFrom = connectors.ofConnector(connectorId)?.clientAddress
  enforcement.connectorRevoked(connectorId, error)
  const certificate = typeof serial === 'string' ? await findCertificate(db, serial) : undefined
  if (!certificate) return
  const { identityId, serviceId, machine } = certificate
  await audit.record({
    type: 'connector.superseded',
    code: 'CONNECTOR_SUPERSEDED',
    how: 'renewed',
    connectorId,
    serviceId,
    label: (await findServiceById(db, serviceId))?.label,
    identityId,
    email: (await findIdentity(db, identityId))?.email,
    certificateSerial: certificate.serial,
    machine,
    clientAddress,
    attachedFrom,
  })
}

function toAnswer({
  certificate,
  serial,
  notBefore,
  notAfter,
  connectorId,
}: ConnectorCertificate): ConnectorCertificateResponse {
  return { certificate, serial, notBefore, notAfter, connectorId }
}
