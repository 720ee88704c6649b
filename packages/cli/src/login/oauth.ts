import type { JsonWebKey } from 'node:crypto'
import { PosternError } from '@postern/shared/errors'
import * as oidc from 'openid-client'
import { describeClock } from '../api/clock.ts'
import { publicPart } from '../api/dpop.ts'
import { type EdgeApi, isClockOff } from '../api/edge-api.ts'
import { createFetch } from '../api/https-request.ts'
import type { KnownEdge } from '../credentials/known-edge.ts'
import type { Session } from '../credentials/session.ts'

/** The edge as an OIDC issuer, through openid-client. Loaded only when tokens are fetched. */

/** @throws EDGE_UNTRUSTED when an endpoint is not of the edge's own origin */
export async function discoverIssuer(api: EdgeApi, clientId: string): Promise<oidc.Configuration> {
  const found = await wrapOauth(
    api,
    oidc.discovery(new URL(api.origin), clientId, undefined, oidc.None(), {
      [oidc.customFetch]: createFetch(api.agent, (answer) => api.remember(answer)),
    }),
  )
  const metadata = found.serverMetadata()
  checkOwnOrigin(metadata, api.origin)
  // once more, now with what the first answers told about the edge's clock
  return configure(api, { ...metadata }, clientId)
}

/** A stolen or misled issuer must not send us, or our codes, elsewhere. */
export function checkOwnOrigin(metadata: object, origin: string): void {
  for (const [name, value] of Object.entries(metadata)) {
    if (name !== 'issuer' && name !== 'jwks_uri' && !name.endsWith('_endpoint')) continue
    if (typeof value !== 'string') continue
    if (URL.parse(value)?.origin !== origin || (name === 'issuer' && value !== origin)) {
      throw new PosternError('EDGE_UNTRUSTED', `${origin} names a ${name} that is not its own: ${value}`, {
        hint: "tell the edge's administrator: its domain and port must be those that people use",
      })
    }
  }
}

/** A new access token for a session. The refresh token stays the same unless the edge gives another.
 *  @throws SESSION_ENDED */
export async function refreshTokens(edge: KnownEdge, api: EdgeApi, session: Session): Promise<Session> {
  const { clockOffsetMs } = api.memory
  const tokens = await requestRefresh(edge, api, session).catch((error: unknown) => {
    // the answer told how much our clock is off, or that it has been set since
    if (!isClockOff(error) || api.memory.clockOffsetMs === clockOffsetMs) throw error
    return requestRefresh(edge, api, session)
  })
  return {
    ...session,
    accessToken: tokens.access_token,
    accessExpiresAt: accessExpiry(api, tokens),
    refreshToken: tokens.refresh_token ?? session.refreshToken,
  }
}

async function requestRefresh(edge: KnownEdge, api: EdgeApi, session: Session) {
  const metadata = {
    issuer: edge.issuer,
    token_endpoint: edge.tokenEndpoint,
    // an ID token comes back too; unsaid, openid-client would insist on RS256
    id_token_signing_alg_values_supported: ['ES256'],
  }
  const config = configure(api, metadata, edge.clientId)
  const DPoP = await createDpopHandle(config, api, session.dpopKey)
  return wrapOauth(api, oidc.refreshTokenGrant(config, session.refreshToken, {}, { DPoP }))
}

/** Epoch milliseconds by the edge's clock. */
export function accessExpiry(api: EdgeApi, tokens: { expires_in?: number | undefined }): number {
  return api.now() + (tokens.expires_in ?? 60) * 1_000
}

export async function createDpopHandle(
  config: oidc.Configuration,
  api: EdgeApi,
  privateJwk: JsonWebKey,
): Promise<oidc.DPoPHandle> {
  const algorithm = { name: 'ECDSA', namedCurve: 'P-256' }
  const { subtle } = globalThis.crypto
  return oidc.getDPoPHandle(
    config,
    {
      privateKey: await subtle.importKey('jwk', privateJwk, algorithm, false, ['sign']),
      publicKey: await subtle.importKey('jwk', publicPart(privateJwk), algorithm, true, ['verify']),
    },
    {
      // a nonce that an earlier answer brought saves a round trip
      [oidc.modifyAssertion]: (_header, payload) => {
        payload.nonce ??= api.memory.dpopNonce
      },
    },
  )
}

/** Waits for a call of openid-client and turns its errors into ours.
 *  @throws LOGIN_REFUSED · SESSION_ENDED · CLOCK_OFF · LOGIN_FAILED · what the connection threw */
export async function wrapOauth<T>(api: EdgeApi, call: Promise<T>): Promise<T> {
  try {
    return await call
  } catch (error) {
    throw explainOauthError(error, api.memory.clockOffsetMs)
  }
}

export function explainOauthError(error: unknown, clockOffsetMs: number): PosternError {
  for (let inner = error; inner instanceof Error; inner = inner.cause) {
    if (inner instanceof PosternError) return inner
  }
  const { error: code, error_description: description, message } = error as oidc.ResponseBodyError
  const reason = description ?? message
  const locked = /^IDENTITY_LOCKED: (.*)$/.exec(reason)?.[1]
  if (locked !== undefined) return new PosternError('IDENTITY_LOCKED', locked, { cause: error })
  if (code === 'access_denied') return new PosternError('LOGIN_REFUSED', reason, { cause: error })
  if (code === 'invalid_grant') {
    return new PosternError('SESSION_ENDED', 'the session at the edge has ended', { cause: error })
  }
  const isAboutTime = code === 'invalid_dpop_proof' || isTimestampFailure(error)
  if (isAboutTime && Math.abs(clockOffsetMs) > 30_000) {
    return new PosternError('CLOCK_OFF', describeClock(clockOffsetMs), { cause: error })
  }
  return new PosternError('LOGIN_FAILED', `the sign-in did not work: ${reason}`, { cause: error })
}

/** What oauth4webapi says of an ID token whose times do not fit our clock. openid-client wraps it. */
function isTimestampFailure(error: unknown): boolean {
  for (let inner = error; inner instanceof Error; inner = inner.cause) {
    if ((inner as { code?: unknown }).code === 'OAUTH_JWT_TIMESTAMP_CHECK_FAILED') return true
  }
  return false
}

function configure(api: EdgeApi, metadata: oidc.ServerMetadata, clientId: string): oidc.Configuration {
  const skew = { [oidc.clockSkew]: Math.round(api.memory.clockOffsetMs / 1_000) }
  const config = new oidc.Configuration(metadata, clientId, skew, oidc.None())
  config[oidc.customFetch] = createFetch(api.agent, (answer) => api.remember(answer))
  return config
}
