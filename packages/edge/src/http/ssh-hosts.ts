import {
  ConnectorCallRequest,
  SSH_HOST_JWS_TYPE,
  SSH_HOST_KEYS_JWS_TYPE,
  type SshAuthoritiesResponse,
  type SshHostCertificatesResponse,
  SshHostKeysClaims,
  type SshHostKeysResponse,
} from '@postern/shared/api/ssh'
import { parseHostKeyLine, signHostKeyRecord } from '@postern/shared/certs/ssh-host-record'
import { parseSshPublicKey, sshFingerprint } from '@postern/shared/certs/ssh-key'
import { parseSshHostPrincipal } from '@postern/shared/certs/ssh-principals'
import { PosternError } from '@postern/shared/errors'
import { labelOfHost, normalizeHost } from '@postern/shared/service-label'
import { issueSshCertificate } from '../ca/issue-ssh.ts'
import { checkStanding } from '../connectors/identify-connector.ts'
import { readSignedCall } from '../connectors/signed-call.ts'
import { denied } from '../flow/authorize.ts'
import { contextOf } from '../policy/context.ts'
import { decide } from '../policy/decide.ts'
import { findServiceByLabel, type ServiceRecord } from '../store/services.ts'
import { sshCertificateRow } from '../store/ssh-certificates.ts'
import { acceptHostKeys, findHostKeys, type HostKeyRecord, reportHostKeys } from '../store/ssh-host-keys.ts'
import { clientAddress } from './client-address.ts'
import type { ApiHandler, ApiParts } from './parts.ts'
import { readBody } from './read-body.ts'
import { findOwn, readsEverything } from './services.ts'

const HOST_CALL = { name: 'host certificate', type: SSH_HOST_JWS_TYPE, schema: SshHostKeysClaims }
const KEYS_CALL = { name: 'host key report', type: SSH_HOST_KEYS_JWS_TYPE, schema: SshHostKeysClaims }

/** `POST /v1/connectors/ssh-host-certificates`: each names the host of the connector's own service and nothing else,
 *  so that no operator can pose as another's server. */
export function issueHostCertificates(parts: ApiParts): ApiHandler {
  const { audit, clock, config, sshAuthorities } = parts
  return async (c) => {
    const { jws } = await readBody(c, ConnectorCallRequest)
    const { claims, connectorId, owner, service } = await readCall(jws, HOST_CALL, parts)
    const subjects = claims.hostKeys.map(parseSshPublicKey)
    const host = hostOf(service, parts)
    const now = clock()
    const certificates: string[] = []
    let notAfter = 0
    for (const subject of subjects) {
      const issued = await issueSshCertificate(sshAuthorities.host, {
        kind: 'host',
        subject,
        keyId: host,
        principals: [parseSshHostPrincipal(host)],
        notBefore: now - config.certificates.backdateMs,
        notAfter: now + config.ssh.hostTtlMs,
      })
      const row = sshCertificateRow({
        ...issued,
        kind: 'host',
        keyId: host,
        principals: [host],
        identityId: owner.id,
        sessionId: undefined,
        serviceId: service.id,
        clientAddress: clientAddress(c),
        connectorId,
        issuedAt: now,
      })
      await audit.record(
        {
          type: 'certificate.issued',
          kind: 'ssh-host',
          identityId: owner.id,
          email: owner.email,
          clientAddress: clientAddress(c),
          serviceId: service.id,
          label: service.label,
          connectorId,
          certificateSerial: String(issued.serial),
          fingerprint: issued.fingerprint,
          principals: [host],
          notBefore: issued.notBefore,
          notAfter: issued.notAfter,
        },
        row,
      )
      certificates.push(issued.certificate)
      notAfter = issued.notAfter
    }
    return c.json({ certificates, notAfter } satisfies SshHostCertificatesResponse, 201)
  }
}

/** `GET /v1/ssh/cas`: without a session, for servers; what is said is signed. */
export function showAuthorities({ sshAuthorities }: Pick<ApiParts, 'sshAuthorities'>): ApiHandler {
  return (c) => {
    const listsOf = (kind: 'user' | 'host') => [...sshAuthorities.signedLists(kind)]
    return c.json({ user: listsOf('user'), host: listsOf('host') } satisfies SshAuthoritiesResponse)
  }
}

/** `POST /v1/connectors/ssh-host-keys` */
export function reportTargetKeys(parts: ApiParts): ApiHandler {
  const { audit, clock, db } = parts
  return async (c) => {
    const { jws } = await readBody(c, ConnectorCallRequest)
    const { claims, connectorId, service } = await readCall(jws, KEYS_CALL, parts)
    const keys = claims.hostKeys.map(parseHostKeyLine)
    const { report, record } = await reportHostKeys(db, { serviceId: service.id, keys, now: clock() })
    const event = {
      serviceId: service.id,
      label: service.label,
      connectorId,
      keys: keys.map(fingerprintOf),
      clientAddress: clientAddress(c),
    }
    if (report === 'first') await audit.record({ type: 'ssh.host_keys_recorded', ...event })
    if (report === 'changed') {
      const before = record.keys.map(fingerprintOf)
      await audit.record({ type: 'ssh.host_keys_changed', ...event, before })
    }
    if (record.pending) {
      throw new PosternError(
        'HOST_KEY_CHANGED',
        `the server behind ${service.label} shows other host keys than those on record`,
        {
          hint: `if it was set up anew, accept them: postern service accept-host-keys ${service.label}`,
          details: {
            connectorId,
            recorded: record.keys.map(fingerprintOf),
            shown: record.pending.map(fingerprintOf),
          },
        },
      )
    }
    return c.json(describe(service, record, parts))
  }
}

/** `GET /v1/services/:ref/ssh-host-keys`: for whom a flow would be opened, for its owner, and for who reads everything. */
export function showHostKeys(parts: ApiParts): ApiHandler {
  const { clock, config, db, roles } = parts
  return async (c) => {
    const { identity, session } = c.get('caller')
    const host = normalizeHost(c.req.param('ref')!)
    const label = labelOfHost(host, config.domain) ?? host
    const service = await findServiceByLabel(db, label)
    if (!service) throw denied(`${label.slice(0, 63)}.${config.domain}`)
    const mayRead = service.ownerId === identity.id || readsEverything(roles.of(identity))
    if (!mayRead) {
      const decision = await decide(db, identity, service, contextOf(session, clientAddress(c)), clock())
      if (!decision.allowed) throw denied(hostOf(service, parts), decision)
    }
    return c.json(describe(service, await findHostKeys(db, service.id), parts))
  }
}

/** `POST /v1/services/:ref/ssh-host-keys/accept`: for the owner and admins. Nothing to accept is no error. */
export function acceptTargetKeys(parts: ApiParts): ApiHandler {
  const { audit, clock, db } = parts
  return async (c) => {
    const { identity } = c.get('caller')
    const service = await findOwn(c.req.param('ref')!, identity, parts)
    const accepted = await acceptHostKeys(db, service.id, clock())
    if (accepted) {
      await audit.record({
        type: 'ssh.host_keys_accepted',
        serviceId: service.id,
        label: service.label,
        identityId: identity.id,
        email: identity.email,
        before: accepted.before.keys.map(fingerprintOf),
        keys: accepted.after.keys.map(fingerprintOf),
        clientAddress: clientAddress(c),
      })
    }
    return c.json(describe(service, accepted?.after ?? (await findHostKeys(db, service.id)), parts))
  }
}

/** Who calls: a connector whose certificate is its current one, with the service it may serve.
 *  @throws CERTIFICATE_REFUSED · CERTIFICATE_EXPIRED · CONNECTOR_REFUSED · CONNECTOR_SUPERSEDED · CLOCK_OFF */
async function readCall(jws: string, kind: typeof HOST_CALL, parts: ApiParts) {
  const { trust } = parts.connectorIssuer
  const { claims, certificate } = await readSignedCall(jws, kind, parts)
  if (certificate.notAfter <= parts.clock()) {
    throw new PosternError('CERTIFICATE_EXPIRED', 'the certificate of the connector has expired')
  }
  if (certificate.renewedBy !== undefined) {
    throw new PosternError('CERTIFICATE_REFUSED', 'the certificate of the connector was renewed')
  }
  const { connectorId } = certificate
  return { claims, connectorId, ...(await checkStanding(certificate, trust)) }
}

function describe(
  service: ServiceRecord,
  record: HostKeyRecord | undefined,
  parts: Pick<ApiParts, 'sshAuthorities' | 'config' | 'clock'>,
): SshHostKeysResponse {
  const { line, publicKey, signingKey } = parts.sshAuthorities.host
  const keys = [...(record?.keys ?? [])]
  const said = {
    host: hostOf(service, parts),
    serviceId: service.id,
    keys,
    revision: record?.revision ?? 0,
    iat: Math.floor(parts.clock() / 1_000),
  }
  return {
    hostCa: line,
    hostCas: parts.sshAuthorities.lines('host'),
    keys,
    record: signHostKeyRecord(said, { type: publicKey.type, key: signingKey }),
    pending: record?.pending !== undefined,
  }
}

function hostOf({ label }: ServiceRecord, { config }: Pick<ApiParts, 'config'>): string {
  return `${label}.${config.domain}`
}

function fingerprintOf(line: string): string {
  return sshFingerprint(Buffer.from(line.split(' ')[1]!, 'base64'))
}
