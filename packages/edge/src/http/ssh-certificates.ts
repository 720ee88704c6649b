import { SshCertificateRequest, type SshCertificateResponse } from '@postern/shared/api/ssh'
import { parseSshPublicKey, type SshPublicKey } from '@postern/shared/certs/ssh-key'
import { PosternError } from '@postern/shared/errors'
import type { Identity } from '@postern/shared/identity'
import { labelOfHost, normalizeHost } from '@postern/shared/service-label'
import type { IssuedSshCertificate } from '../ca/issue-ssh.ts'
import { denied } from '../flow/authorize.ts'
import type { PolicyContext } from '../policy/conditions.ts'
import { contextOf } from '../policy/context.ts'
import { decide } from '../policy/decide.ts'
import { composeSshGrant, type SshGrant } from '../policy/ssh-profile.ts'
import { findServiceById, findServiceByLabel, type ServiceRecord } from '../store/services.ts'
import type { Session } from '../store/sessions.ts'
import { insertSshCertificate, revokeSshCertificates } from '../store/ssh-certificates.ts'
import { spendCertificate } from './certificate-rate.ts'
import { clientAddress } from './client-address.ts'
import type { ApiHandler, ApiParts } from './parts.ts'
import { readBody } from './read-body.ts'
import { recordOwnRefusal } from './record-refusal.ts'

/** `POST /v1/certificates/ssh`: only for whom the service admits now, as a flow would. */
export function issueSsh(parts: ApiParts): ApiHandler {
  const { audit, config, db } = parts
  return async (c) => {
    const { identity, session } = c.get('caller')
    const request = await readBody(c, SshCertificateRequest)
    const subject = parseSshPublicKey(request.publicKey)
    const host = normalizeHost(request.host)
    const label = labelOfHost(host, config.domain) ?? host
    const service = await findServiceByLabel(db, label)
    const context = contextOf(session, clientAddress(c))
    const decision = service && (await decide(db, identity, service, context, parts.clock()))
    const event = {
      kind: 'ssh' as const,
      identityId: identity.id,
      email: identity.email,
      clientAddress: clientAddress(c),
      serviceId: service?.id,
      label: service?.label ?? label.slice(0, 63),
    }
    await spendCertificate(c, event, parts)
    const refuse = async (error: PosternError, rule: string): Promise<never> => {
      await recordOwnRefusal(c, { type: 'certificate.refused', ...event, code: error.code, rule }, audit)
      throw error
    }
    if (!service || !decision?.allowed) {
      const denial = decision?.allowed === false ? decision : undefined
      return refuse(denied(`${event.label}.${config.domain}`, denial), denial?.rule ?? 'no such service')
    }
    let grant: SshGrant
    try {
      grant = composeGrant(identity, service, parts)
    } catch (error) {
      if (!(error instanceof PosternError)) throw error
      return refuse(error, decision.rule)
    }
    const issued = await sign({ subject, grant, service, session }, parts)
    const { serial, fingerprint, notBefore, notAfter } = issued
    const { keyId, principals } = grant
    await insertSshCertificate(db, {
      serial,
      kind: 'user',
      fingerprint,
      keyId,
      principals,
      identityId: identity.id,
      sessionId: session.id,
      serviceId: service.id,
      clientAddress: event.clientAddress,
      connectorId: undefined,
      notBefore,
      notAfter,
      issuedAt: parts.clock(),
    })
    if (!(await stillHolds({ session, service, identity, context }, parts))) {
      await revokeSshCertificates(db, { serial }, { reason: 'withdrawn', now: parts.clock() })
      return refuse(denied(`${event.label}.${config.domain}`), 'withdrawn meanwhile')
    }
    await audit.record({
      type: 'certificate.issued',
      ...event,
      serviceId: service.id,
      certificateSerial: String(serial),
      fingerprint,
      principals,
      sessionId: session.id,
      notBefore,
      notAfter,
    })
    const answer: SshCertificateResponse = {
      certificate: issued.certificate,
      serial: String(serial),
      keyId,
      principals,
      fingerprint,
      notBefore,
      notAfter,
      serviceId: service.id,
    }
    return c.json(answer, 201)
  }
}

/** Whoever ends a session or closes a service revokes what is in the store by then: ask again now that this one is. */
async function stillHolds(
  of: { session: Session; service: ServiceRecord; identity: Identity; context: PolicyContext },
  { db, login, clock }: Pick<ApiParts, 'db' | 'login' | 'clock'>,
): Promise<boolean> {
  const service = await findServiceById(db, of.service.id)
  if (!service) return false
  const decision = await decide(db, of.identity, service, of.context, clock())
  if (!decision.allowed) return false
  return login.sessionIsLive(of.session.id)
}

function composeGrant(
  identity: Identity,
  service: ServiceRecord,
  { config }: Pick<ApiParts, 'config'>,
): SshGrant {
  const host = `${service.label}.${config.domain}`
  return composeSshGrant(identity, { host, ssh: service.ssh }, { allowShared: config.ssh.sharedPrincipal })
}

/** Valid as the service says, but no longer than the edge says and the session lives. */
async function sign(
  of: { subject: SshPublicKey; grant: SshGrant; service: ServiceRecord; session: Session },
  { issuing, config, clock }: Pick<ApiParts, 'issuing' | 'config' | 'clock'>,
): Promise<IssuedSshCertificate> {
  const now = clock()
  if (of.session.expiresAt < now + 1_000) {
    throw new PosternError('SESSION_ENDED', 'nothing is left of the session')
  }
  const ttlMs = Math.min(config.ssh.ttlMs, of.service.ssh.ttlMs ?? config.ssh.ttlMs)
  return issuing.issueSshUser({
    kind: 'user',
    subject: of.subject,
    ...of.grant,
    notBefore: now - config.certificates.backdateMs,
    notAfter: Math.min(now + ttlMs, of.session.expiresAt),
  })
}
