/** How a server becomes a connector without a person: somebody who may, makes a token for one service, and the first
 *  machine that brings it gets a certificate, once. From then on it is a connector like every other. */
import { randomBytes } from 'node:crypto'
import { ENROLL_TOKEN_PREFIX, type EnrollConnectorRequest } from '@postern/shared/api/enroll'
import { formatDuration } from '@postern/shared/duration'
import { PosternError } from '@postern/shared/errors'
import type { Identity } from '@postern/shared/identity'
import type { Kysely } from 'kysely'
import { readCsrPublicKey } from '../ca/public-key.ts'
import type { Roles } from '../policy/roles.ts'
import {
  countOpenEnrollTokens,
  createEnrollToken,
  type EnrollToken,
  findEnrollToken,
  useEnrollToken,
} from '../store/enroll-tokens.ts'
import { findIdentity } from '../store/identities.ts'
import type { Database } from '../store/schema.ts'
import { findServiceById, type ServiceRecord } from '../store/services.ts'
import { type ConnectorCertificate, type ConnectorIssuer, issue, toRecord } from './certificates.ts'

const TOKEN_BYTES = 32
const MIN_TTL_MS = 60_000
const DEFAULT_TTL_MS = 86_400_000
/** Of one service. Nobody needs more, and a list that long is never looked at. */
const MAX_OPEN = 100
/** So long the key that used a token is answered again: it may not have got its answer. */
export const ANSWERABLE_MS = 600_000

export interface MadeToken {
  /** Shown once and not kept. */
  token: string
  record: EnrollToken
}

/** @param maker has been found to own the service or to be an admin
 *  @throws OPERATOR_REQUIRED the service's owner is none · DURATION_INVALID · RATE_LIMITED · SERVICE_UNKNOWN */
export async function makeEnrollToken(
  db: Kysely<Database>,
  { service, maker, ttlMs }: { service: ServiceRecord; maker: Identity; ttlMs: number | undefined },
  { roles, maxTtlMs, now }: { roles: Roles; maxTtlMs: number; now: number },
): Promise<MadeToken> {
  const owner = await findIdentity(db, service.ownerId)
  // a connector stands under the name of the service's owner, whoever admits it
  roles.require(owner ?? { email: maker.email }, 'operator')
  const lifetimeMs = ttlMs ?? Math.min(DEFAULT_TTL_MS, maxTtlMs)
  if (lifetimeMs < MIN_TTL_MS || lifetimeMs > maxTtlMs) {
    const bounds = `${formatDuration(MIN_TTL_MS)} to ${formatDuration(maxTtlMs)}`
    throw new PosternError('DURATION_INVALID', `an enroll token of this edge may live for ${bounds}`)
  }
  const token = ENROLL_TOKEN_PREFIX + randomBytes(TOKEN_BYTES).toString('base64url')
  const wanted = { token, serviceId: service.id, createdBy: maker.id, expiresAt: now + lifetimeMs }
  const record = await createEnrollToken(db, wanted, { now, maxOpen: MAX_OPEN })
  if (record) return { token, record }
  if ((await countOpenEnrollTokens(db, service.id, now)) === 0) {
    throw new PosternError('SERVICE_UNKNOWN', `the service ${service.label} was deleted meanwhile`)
  }
  throw new PosternError('RATE_LIMITED', `${service.label} has ${MAX_OPEN} open enroll tokens`, {
    hint: `cancel them: postern service enroll-token ${service.label} --cancel`,
  })
}

/** What the audit log says about an enrolment, whether it succeeds or not. */
export interface EnrollFacts {
  tokenId: string
  service: ServiceRecord | undefined
  owner: Identity | undefined
}

export interface Enrolled {
  issued: ConnectorCertificate
  service: ServiceRecord
  owner: Identity
  /** The same key had asked before, and may not have got its answer. */
  isAnsweredAgain: boolean
}

/** A certificate for whoever brings the token first. Nothing is used up before all else is found to be right.
 *  @param heard is told whose token it is, as soon as that is known
 *  @throws ENROLL_TOKEN_INVALID unknown, used, expired, for another service, or its service may have no more
 *  connectors · REQUEST_INVALID the CSR */
export async function enroll(
  request: EnrollConnectorRequest,
  issuer: ConnectorIssuer,
  heard: (facts: EnrollFacts) => void,
): Promise<Enrolled> {
  const { db, clock } = issuer.trust
  const token = await findEnrollToken(db, request.token)
  if (!token) throw invalid('is not known here')
  const { service, owner } = await findParties(token, issuer, heard)
  refuseOtherService(request, service)
  if (token.usedAt === undefined && token.expiresAt <= clock()) throw invalid('has expired')
  const publicKey = await readCsrPublicKey(request.csr)
  const leaf = await issue(token.connectorId, publicKey, issuer)
  const certificate = toRecord(
    leaf,
    {
      identityId: owner.id,
      serviceId: service.id,
      connectorId: token.connectorId,
      machine: request.machine,
    },
    issuer,
  )
  const times = { now: clock(), answerableMs: ANSWERABLE_MS }
  const outcome = await useEnrollToken(db, token.id, certificate, times)
  if (outcome === 'refused') throw invalid('was used before')
  const issued = { ...leaf, connectorId: token.connectorId }
  return { issued, service, owner, isAnsweredAgain: outcome === 'again' }
}

/** The service with its owner, if both still stand, and if whoever made the token still might. */
async function findParties(
  token: EnrollToken,
  { trust }: ConnectorIssuer,
  heard: (facts: EnrollFacts) => void,
): Promise<{ service: ServiceRecord; owner: Identity }> {
  const service = await findServiceById(trust.db, token.serviceId)
  const owner = service && (await findIdentity(trust.db, service.ownerId))
  heard({ tokenId: token.id, service, owner })
  if (!service || !owner) throw invalid('is for a service that was deleted')
  if (!trust.roles.of(owner).includes('operator')) {
    throw invalid('is for a service whose owner is no operator any more')
  }
  if (token.createdBy !== owner.id) {
    const maker = await findIdentity(trust.db, token.createdBy)
    if (!maker || !trust.roles.of(maker).includes('admin')) {
      throw invalid('was made by somebody who is no administrator any more')
    }
  }
  return { service, owner }
}

/** A file that lies on the wrong machine must not put that machine behind the service's name. */
function refuseOtherService(request: EnrollConnectorRequest, service: ServiceRecord): void {
  const isMeant = request.label === undefined || request.label === service.label
  if (request.name === service.name && isMeant) return
  throw invalid('is for another service', 'give the --name (and --label) of the service it was made for')
}

function invalid(why: string, hint?: string): PosternError {
  return new PosternError('ENROLL_TOKEN_INVALID', `the enroll token ${why}`, hint ? { hint } : {})
}
