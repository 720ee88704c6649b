import { createHash } from 'node:crypto'
import type { IncomingMessage } from 'node:http'
import { formatDuration } from '@postern/shared/duration'
import { ERRORS, PosternError } from '@postern/shared/errors'
import type { Identity } from '@postern/shared/identity'
import { calculateJwkThumbprint, EmbeddedJWK, type JWTVerifyResult, jwtVerify } from 'jose'
import type { Kysely } from 'kysely'
import { refuseLocked } from '../revocation/locks.ts'
import { findOidcRecord, type OidcPayload } from '../store/oidc-records.ts'
import { useOnce } from '../store/replay-guards.ts'
import type { Database } from '../store/schema.ts'
import type { Session } from '../store/sessions.ts'
import { isFreshNonce } from './dpop-nonce.ts'
import type { Sessions } from './sessions.ts'

/** Who asks: an access token, and a proof made for this very request by the key the token is bound to (RFC 9449
 *  §4.3 and §7). A token alone is worth nothing here; plain Bearer is refused. */

/** What is read of a request; node's own fits. */
export type ProvenRequest = Pick<IncomingMessage, 'method' | 'url' | 'headers'>

export interface Verified {
  identity: Identity
  session: Session
}

/** The error parameter of the answer's `WWW-Authenticate` (RFC 9449 §7.1 and §8), in `details.error`. */
export type DpopChallenge = 'use_dpop_nonce' | 'invalid_dpop_proof' | 'invalid_token'

/** More than a token of ours ever has. */
const MAX_TOKEN_CHARS = 128
const MAX_PROOF_CHARS = 4_096
const MAX_JTI_CHARS = 256
/** How far a client's clock may be off. */
export const CLOCK_TOLERANCE_MS = 60_000
/** Longer than any nonce is accepted. */
const JTI_KEPT_MS = 10 * 60_000

export interface VerifyParts {
  origin: string
  nonceSecret: Buffer
  db: Kysely<Database>
  clock: () => number
  sessions: Sessions
}

/** @throws SIGN_IN_REQUIRED no token, or one that is not valid (any more) · SESSION_ENDED · IDENTITY_LOCKED · DPOP_INVALID the
 *  proof does not fit, or lacks a fresh server nonce · CLOCK_OFF */
export async function verifyRequest(request: ProvenRequest, parts: VerifyParts): Promise<Verified> {
  const token = readToken(request.headers.authorization)
  const proof = await readProof(request.headers.dpop, parts.clock())
  requireNonce(proof.nonce, parts)
  requireClock(proof.iat, parts.clock())
  requireTarget(proof, request, parts.origin)
  requireToken(proof, token)
  const record = await findOidcRecord(parts.db, { model: 'AccessToken', id: token }, parts.clock())
  const verified = await requireSession(record, parts)
  // after the session, so that only holders of a live token can fill the table
  if (record?.jkt !== proof.thumbprint) throw invalidProof('made by another key than the token belongs to')
  const isFirst = await useOnce(
    parts.db,
    `dpop:${proof.thumbprint}:${proof.jti}`,
    parts.clock() + JTI_KEPT_MS,
  )
  if (!isFirst) throw invalidProof('used before')
  return verified
}

/** The challenge that goes with an answer to `error`; nothing for errors that are not about proving oneself. */
export function challengeOf(error: unknown): Record<string, string> {
  if (!(error instanceof PosternError) || ERRORS[error.code].http !== 401) return {}
  const kind = error.details?.error
  const parameter = typeof kind === 'string' ? `error="${kind}", ` : ''
  return { 'WWW-Authenticate': `DPoP ${parameter}algs="ES256"` }
}

interface Proof {
  thumbprint: string
  jti: string
  htm: unknown
  htu: unknown
  ath: unknown
  nonce: unknown
  /** Epoch seconds. */
  iat: number
}

function readToken(authorization: string | undefined): string {
  if (authorization === undefined) throw signInRequired('the request has no access token')
  const [scheme = '', token = '', ...rest] = authorization.split(' ')
  if (scheme.toLowerCase() !== 'dpop') {
    throw signInRequired('the access token must come with its key: Authorization: DPoP, not Bearer')
  }
  if (rest.length > 0 || token.length > MAX_TOKEN_CHARS || !/^[A-Za-z0-9_-]+$/.test(token)) {
    throw signInRequired('the access token is not one of ours')
  }
  return token
}

async function readProof(header: string | string[] | undefined, now: number): Promise<Proof> {
  if (typeof header !== 'string') throw invalidProof('missing')
  if (header.length > MAX_PROOF_CHARS) throw invalidProof('too long')
  const { payload, protectedHeader } = await checkSignature(header, now)
  const { jti, iat } = payload
  if (typeof jti !== 'string' || jti === '' || jti.length > MAX_JTI_CHARS) throw invalidProof('without jti')
  if (typeof iat !== 'number' || !Number.isFinite(iat)) throw invalidProof('without iat')
  const { htm, htu, ath, nonce } = payload
  return { thumbprint: await calculateJwkThumbprint(protectedHeader.jwk!), jti, iat, htm, htu, ath, nonce }
}

async function checkSignature(proof: string, now: number): Promise<JWTVerifyResult> {
  try {
    return await jwtVerify(proof, EmbeddedJWK, {
      algorithms: ['ES256'],
      typ: 'dpop+jwt',
      currentDate: new Date(now),
    })
  } catch (cause) {
    throw invalidProof('not a proof signed with ES256', cause)
  }
}

function requireNonce(nonce: unknown, parts: VerifyParts): void {
  if (typeof nonce === 'string' && isFreshNonce(parts.nonceSecret, nonce, parts.clock())) return
  throw new PosternError('DPOP_INVALID', 'the proof lacks a fresh nonce of this edge', {
    hint: 'repeat the request with the nonce of this answer',
    details: { error: 'use_dpop_nonce' satisfies DpopChallenge },
  })
}

/** A nonce would do as proof of freshness; a clock this wrong is told before certificates fail because of it. */
function requireClock(iatSeconds: number, now: number): void {
  const offsetMs = iatSeconds * 1_000 - now
  if (Math.abs(offsetMs) <= CLOCK_TOLERANCE_MS) return
  const direction = offsetMs > 0 ? 'ahead of' : 'behind'
  const message = `this machine's clock is ${formatDuration(offsetMs)} ${direction} the edge's`
  throw new PosternError('CLOCK_OFF', message, { details: { offsetMs: Math.round(offsetMs) } })
}

function requireTarget(proof: Proof, request: ProvenRequest, origin: string): void {
  if (proof.htm !== request.method) throw invalidProof('made for another method')
  const target = request.url ?? ''
  // an absolute or protocol-relative target would name its own host
  if (!target.startsWith('/') || target.startsWith('//')) throw invalidProof('made for another address')
  if (addressOf(proof.htu) !== addressOf(`${origin}${target}`)) {
    throw invalidProof('made for another address')
  }
}

/** Normalized, without query and fragment (RFC 9449 §4.3). */
function addressOf(text: unknown): string | undefined {
  const url = typeof text === 'string' ? URL.parse(text) : null
  return url ? `${url.origin}${url.pathname}` : undefined
}

function requireToken(proof: Proof, token: string): void {
  const expected = createHash('sha256').update(token).digest('base64url')
  if (proof.ath !== expected) throw invalidProof('made for another access token')
}

async function requireSession(record: OidcPayload | undefined, parts: VerifyParts): Promise<Verified> {
  const grantId = record?.grantId
  if (typeof grantId !== 'string') throw signInRequired('the access token is not valid any more')
  const verified = await parts.sessions.findLive(grantId)
  if (verified) {
    await refuseLocked(parts.db, verified.identity, parts.clock())
    return verified
  }
  throw new PosternError('SESSION_ENDED', 'your session at this edge is over', {
    details: { error: 'invalid_token' satisfies DpopChallenge },
  })
}

function signInRequired(message: string): PosternError {
  return new PosternError('SIGN_IN_REQUIRED', message, {
    details: { error: 'invalid_token' satisfies DpopChallenge },
  })
}

function invalidProof(what: string, cause?: unknown): PosternError {
  const details = { error: 'invalid_dpop_proof' satisfies DpopChallenge }
  return new PosternError('DPOP_INVALID', `the DPoP proof is ${what}`, { details, cause })
}
