import {
  type CancelEnrollTokensResponse,
  EnrollConnectorRequest,
  type EnrollConnectorResponse,
  MakeEnrollTokenRequest,
  type MakeEnrollTokenResponse,
} from '@postern/shared/api/enroll'
import { PosternError } from '@postern/shared/errors'
import { type EnrollFacts, enroll, makeEnrollToken } from '../connectors/enroll.ts'
import { EnrollAttempts } from '../connectors/enroll-attempts.ts'
import { cancelEnrollTokens } from '../store/enroll-tokens.ts'
import { clientAddress, clientHost } from './client-address.ts'
import type { ApiHandler, ApiParts } from './parts.ts'
import { readBody } from './read-body.ts'
import { recordOwnRefusal } from './record-refusal.ts'
import { findOwn } from './services.ts'

/** `POST /v1/services/:ref/enroll-tokens` */
export function makeToken(parts: ApiParts): ApiHandler {
  const { audit, clock, config, db, roles } = parts
  return async (c) => {
    const { identity } = c.get('caller')
    const { ttlMs } = await readBody(c, MakeEnrollTokenRequest)
    const service = await findOwn(c.req.param('ref')!, identity, parts)
    const limits = { roles, maxTtlMs: config.certificates.enrollTokenMaxTtlMs, now: clock() }
    const { token, record } = await makeEnrollToken(db, { service, maker: identity, ttlMs }, limits)
    await audit.record({
      type: 'enroll_token.created',
      tokenId: record.id,
      serviceId: service.id,
      label: service.label,
      identityId: identity.id,
      email: identity.email,
      expiresAt: record.expiresAt,
      clientAddress: clientAddress(c),
    })
    const answer: MakeEnrollTokenResponse = {
      token,
      id: record.id,
      expiresAt: record.expiresAt,
      host: `${service.label}.${config.domain}`,
      name: service.name,
    }
    return c.json(answer, 201)
  }
}

/** `DELETE /v1/services/:ref/enroll-tokens`: all that are open. */
export function cancelTokens(parts: ApiParts): ApiHandler {
  const { audit, clock, db } = parts
  return async (c) => {
    const { identity } = c.get('caller')
    const service = await findOwn(c.req.param('ref')!, identity, parts)
    const cancelled = await cancelEnrollTokens(db, service.id, clock())
    if (cancelled > 0) {
      await audit.record({
        type: 'enroll_token.cancelled',
        count: cancelled,
        serviceId: service.id,
        label: service.label,
        identityId: identity.id,
        email: identity.email,
        clientAddress: clientAddress(c),
      })
    }
    return c.json({ cancelled } satisfies CancelEnrollTokensResponse)
  }
}

/** `POST /v1/connectors/enroll`: the token says it all; there is no session. */
export function enrollConnector(parts: ApiParts): ApiHandler {
  const { audit, clock, config, connectorIssuer } = parts
  const attempts = new EnrollAttempts()
  return async (c) => {
    const request = await readBody(c, EnrollConnectorRequest)
    const giveBack = attempts.begin(clientHost(c), clock())
    let facts: EnrollFacts | undefined
    const enrolled = await enroll(request, connectorIssuer, (heard) => {
      facts = heard
    }).catch(async (error: unknown) => {
      if (error instanceof PosternError && error.code === 'ENROLL_TOKEN_INVALID') {
        const known = facts && { ...describeFacts(facts), reason: error.message, machine: request.machine }
        const event = { code: error.code, clientAddress: clientAddress(c), ...known }
        await recordOwnRefusal(c, { type: 'enroll_token.refused', ...event }, audit)
      }
      throw error
    })
    giveBack()
    const { issued, service, owner, isAnsweredAgain } = enrolled
    const { certificate, serial, notBefore, notAfter, connectorId } = issued
    await audit.record({
      type: 'enroll_token.used',
      tokenId: facts!.tokenId,
      serviceId: service.id,
      label: service.label,
      identityId: owner.id,
      email: owner.email,
      connectorId,
      machine: request.machine,
      certificateSerial: serial,
      keyHash: issued.keyHash,
      notBefore,
      notAfter,
      isAnsweredAgain,
      clientAddress: clientAddress(c),
    })
    const answer: EnrollConnectorResponse = {
      certificate,
      serial,
      notBefore,
      notAfter,
      connectorId,
      service: {
        id: service.id,
        name: service.name,
        label: service.label,
        host: `${service.label}.${config.domain}`,
      },
    }
    return c.json(answer, 201)
  }
}

function describeFacts({ tokenId, service, owner }: EnrollFacts) {
  return {
    tokenId,
    serviceId: service?.id,
    label: service?.label,
    identityId: owner?.id,
    email: owner?.email,
  }
}
