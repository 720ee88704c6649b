import type { EventEmitter } from 'node:events'
import type { IncomingMessage } from 'node:http'
import type { ErrorCode } from '@postern/shared/errors'
import type { Logger } from '@postern/shared/logger'
import { calculateJwkThumbprint, decodeProtectedHeader, type JWK } from 'jose'
import type { Kysely } from 'kysely'
import Provider, {
  type Adapter,
  type Configuration,
  errors,
  interactionPolicy,
  type KoaContextWithOIDC,
} from 'oidc-provider'
import { findIdentity } from '../store/identities.ts'
import type { Database } from '../store/schema.ts'
import { clientAddressOf } from './client-address.ts'
import { USER_CODE_MASK } from './device-codes.ts'
import { COOKIE_NAMES, confineIssuerCookies } from './issuer-cookies.ts'
import type { LoginKeys } from './keys.ts'
import { showError, startPage } from './pages.ts'
import { recordRefused } from './record-refused.ts'
import type { RecordLogin } from './sessions.ts'

/** The edge as OIDC issuer. It refuses to remember a browser, to grant anything without the person's POST, and
 *  to give a token that is not bound to a key. Whatever the library can do and Postern does not need is off. */

export const CLIENT_ID = 'postern-cli'
export const SCOPES = ['openid', 'email', 'offline_access'] as const

export const ROUTES = {
  authorization: '/oauth/auth',
  token: '/oauth/token',
  jwks: '/oauth/jwks',
  revocation: '/oauth/revoke',
  introspection: '/oauth/introspect',
  device_authorization: '/oauth/device/authorize',
  // short, because people type it; served by us, never by the library
  code_verification: '/device',
} as const

export const DEVICE_DONE_PATH = `${ROUTES.code_verification}/done`
export const DEVICE_GRANT = 'urn:ietf:params:oauth:grant-type:device_code'

const ACCESS_TOKEN_SECONDS = 30 * 60
const CODE_SECONDS = 60
/** How often a program asks whether its code was typed (RFC 8628 §3.2). */
const POLL_SECONDS = 2
/** From the first page to the person's POST; also the life of a device code. */
export const INTERACTION_SECONDS = 10 * 60

export interface IssuerParts {
  origin: string
  keys: LoginKeys
  sessionMs: number
  /** Whether programs without a browser may ask for a code (RFC 8628). */
  device: boolean
  db: Kysely<Database>
  adapter: (model: string) => Adapter
  log: Logger
  record: RecordLogin
  /** Told of each request that was refused. */
  onRefused: (req: IncomingMessage) => void
}

export function createIssuer(parts: IssuerParts): Provider {
  const provider = new Provider(parts.origin, issuerConfiguration(parts))
  provider.proxy = false
  confineIssuerCookies(provider)
  provider.use(async (ctx, next) => {
    await next()
    removeCors(ctx)
    if (ctx.path === ROUTES.device_authorization) adjustDeviceAnswer(ctx.body)
  })
  noteFailures(provider, parts)
  return provider
}

/** Exported for the test that looks at every lifetime. */
export function issuerConfiguration(parts: Omit<IssuerParts, 'record'>): Configuration {
  return {
    adapter: parts.adapter,
    clients: [
      {
        client_id: CLIENT_ID,
        client_name: 'postern, the command line',
        application_type: 'native',
        token_endpoint_auth_method: 'none',
        // a native client: any port of this address is accepted (RFC 8252 §7.3)
        redirect_uris: ['http://127.0.0.1/callback'],
        grant_types: ['authorization_code', 'refresh_token', ...(parts.device ? [DEVICE_GRANT] : [])],
        response_types: ['code'],
        scope: SCOPES.join(' '),
        dpop_bound_access_tokens: true,
        id_token_signed_response_alg: 'ES256',
      },
    ],
    clientAuthMethods: ['none'],
    clientBasedCORS: () => false,
    clockTolerance: 0,
    claims: { openid: ['sub'], email: ['email', 'email_verified'] },
    scopes: [...SCOPES],
    responseTypes: ['code'],
    cookies: {
      keys: parts.keys.cookieKeys,
      names: { ...COOKIE_NAMES },
      long: { httpOnly: true, secure: true, sameSite: 'lax', path: '/', signed: true },
      short: { httpOnly: true, secure: true, sameSite: 'lax', path: '/', signed: true },
    },
    jwks: { keys: [parts.keys.signingKey as JWK & { kty: 'EC' }] },
    enabledJWA: { idTokenSigningAlgValues: ['ES256'], dPoPSigningAlgValues: ['ES256'] },
    pkce: { required: () => true },
    // at the device endpoint a parameter of ours: RFC 9449 §10 has it for authorization codes only
    extraParams: parts.device ? { dpop_jkt: requireKeyForDevice } : {},
    features: {
      devInteractions: { enabled: false },
      dPoP: {
        enabled: true,
        nonceSecret: parts.keys.nonceSecret,
        requireNonce: () => true,
        allowReplay: false,
      },
      introspection: { enabled: true, allowedPolicy: isOwnToken },
      revocation: { enabled: true, allowedPolicy: isOwnToken },
      userinfo: { enabled: false },
      rpInitiatedLogout: { enabled: false },
      pushedAuthorizationRequests: { enabled: false },
      resourceIndicators: { enabled: false },
      registration: { enabled: false },
      deviceFlow: {
        enabled: parts.device,
        charset: 'base-20',
        mask: USER_CODE_MASK,
        deviceInfo: (ctx) => ({ address: clientAddressOf(ctx.req) }),
      },
      clientCredentials: { enabled: false },
      backchannelLogout: { enabled: false },
      claimsParameter: { enabled: false },
      requestObjects: { enabled: false },
    },
    routes: ROUTES,
    interactions: { policy: loginEveryTime(), url: (_ctx, interaction) => `/login/${interaction.uid}` },
    ttl: lifetimes(Math.floor(parts.sessionMs / 1_000)),
    // tokens hang on our session, never on the browser's
    expiresWithSession: () => false,
    // bound to a key, so not rotated (RFC 9700 §4.14.2): no race, nothing lost on a crash
    rotateRefreshToken: () => false,
    issueRefreshToken: (_ctx, client, code) =>
      client.grantTypeAllowed('refresh_token') && code.scopes.has('offline_access'),
    revokeGrantPolicy: () => true,
    // only the grant that this login's own POST made; the library's default also takes one of the session
    loadExistingGrant: async (ctx) => {
      const grantId = ctx.oidc.result?.consent?.grantId
      return grantId === undefined ? undefined : await ctx.oidc.provider.Grant.find(grantId)
    },
    findAccount: async (ctx, id, token) => {
      if (token?.kind === 'DeviceCode') await requireKeyThatAsked(ctx, token)
      const identity = await findIdentity(parts.db, id)
      if (!identity) return undefined
      const claims = { sub: id, email: identity.email, email_verified: true }
      return { accountId: id, claims: () => claims }
    },
    renderError: (ctx, out, error) => {
      const isOurs = out.error === 'server_error'
      const message = isOurs ? 'the edge failed' : describe(out, error)
      const page = {
        code: isOurs ? 'INTERNAL' : 'LOGIN_FAILED',
        message,
        hint: startPage(parts.origin),
      } as const
      ctx.body = showError(ctx.res, page, ctx.status)
      ctx.type = 'html'
    },
  }
}

/** Nothing outlives the session: codes, tokens and refresh tokens end with their grant at the latest. */
function lifetimes(sessionSeconds: number): NonNullable<Configuration['ttl']> {
  return {
    Grant: sessionSeconds,
    AccessToken: (ctx) => upToGrantEnd(ctx, ACCESS_TOKEN_SECONDS),
    IdToken: (ctx) => upToGrantEnd(ctx, ACCESS_TOKEN_SECONDS),
    RefreshToken: (ctx) => upToGrantEnd(ctx, sessionSeconds),
    AuthorizationCode: (ctx) => upToGrantEnd(ctx, CODE_SECONDS),
    Interaction: INTERACTION_SECONDS,
    DeviceCode: INTERACTION_SECONDS,
    // never kept, see the adapter
    Session: INTERACTION_SECONDS,
    // off, but never the library's 14 days
    ClientCredentials: CODE_SECONDS,
    BackchannelAuthenticationRequest: CODE_SECONDS,
    PreAuthorizedCode: CODE_SECONDS,
  }
}

function upToGrantEnd(ctx: KoaContextWithOIDC | undefined, seconds: number): number {
  const end = ctx?.oidc.entities.Grant?.exp
  if (end === undefined) return 1
  return Math.max(1, Math.min(seconds, end - Math.floor(Date.now() / 1_000)))
}

/** Whatever session the browser claims to have, a login goes through the provider and the person's POST. */
function loginEveryTime() {
  const policy = interactionPolicy.base()
  policy
    .get('login')!
    .checks.add(
      new interactionPolicy.Check(
        'every_time',
        'every sign-in is confirmed',
        'login_required',
        (ctx) => !ctx.oidc.result?.login,
      ),
    )
  policy
    .get('consent')!
    .checks.add(
      new interactionPolicy.Check(
        'every_time',
        'every sign-in is confirmed',
        'consent_required',
        (ctx) => !ctx.oidc.result?.consent?.grantId,
      ),
    )
  return policy
}

function isOwnToken(_ctx: unknown, client: { clientId: string }, token: { clientId?: string | undefined }) {
  return token.clientId === client.clientId
}

/** Before a code is given out: without its key it would be worth something to whoever reads it. */
function requireKeyForDevice(ctx: KoaContextWithOIDC, thumbprint: unknown): void {
  if (ctx.oidc.route !== 'device_authorization') return
  if (typeof thumbprint === 'string' && /^[A-Za-z0-9_-]{43}$/.test(thumbprint)) return
  throw new errors.InvalidRequest('dpop_jkt must name the key that the tokens will be bound to')
}

/** The library binds the tokens to whatever key redeems the code; it must be the key that asked for it. Called
 *  before tokens are made; the proof itself is verified by then. */
async function requireKeyThatAsked(ctx: KoaContextWithOIDC, code: { params?: unknown }): Promise<void> {
  const { dpop_jkt: asked } = (code.params ?? {}) as { dpop_jkt?: unknown }
  const { jwk } = decodeProtectedHeader(ctx.get('DPoP'))
  if (jwk && (await calculateJwkThumbprint(jwk)) === asked) return
  throw new errors.InvalidGrant('the device code was given to another key')
}

/** No `verification_uri_complete`: a code that need not be typed is a link that can be sent to somebody. */
function adjustDeviceAnswer(body: unknown): void {
  if (typeof body !== 'object' || body === null || !('device_code' in body)) return
  delete (body as { verification_uri_complete?: string }).verification_uri_complete
  Object.assign(body, { interval: POLL_SECONDS })
}

/** No page of another origin has business here; the library answers `*` on some routes. */
function removeCors(ctx: { response: { headers: object; remove(name: string): void } }): void {
  for (const name of Object.keys(ctx.response.headers)) {
    if (name.toLowerCase().startsWith('access-control-')) ctx.response.remove(name)
  }
}

function describe(out: { error: string; error_description?: string | undefined }, error: Error): string {
  return out.error_description ?? out.error ?? error.message
}

/** Answers of the library that ask for a nonce or for patience: nobody is refused. */
const NO_REFUSALS: ReadonlySet<string> = new Set(['use_dpop_nonce', 'authorization_pending', 'slow_down'])

function noteFailures(
  provider: Provider,
  { log, record, onRefused }: Pick<IssuerParts, 'log' | 'record' | 'onRefused'>,
): void {
  const refused = (ctx: KoaContextWithOIDC, error: errors.OIDCProviderError) => {
    const isRefresh = ctx.oidc?.params?.grant_type === 'refresh_token'
    // what a program hears of a sign-in that ended without one was said, and recorded, in the browser
    const isHeard = error.message === 'access_denied' && !isRefresh
    if (NO_REFUSALS.has(error.message) || isHeard) return undefined
    const code = codeOf(error, isRefresh)
    onRefused(ctx.req)
    void recordRefused({ code, clientAddress: clientAddressOf(ctx.req) }, record)
    return code
  }
  // descriptions of the library name parameters and reasons, never values
  provider.on('server_error', (_ctx, error) => log.error('login.server_error', { error: error.stack }))
  provider.on('grant.error', (ctx, error) => {
    const code = refused(ctx, error)
    // a program that waits asks every other second
    const isWaiting = error.message === 'authorization_pending'
    log[isWaiting ? 'debug' : 'info']('login.grant_refused', { code, ...reasonOf(error) })
  })
  const onRequestError = (ctx: KoaContextWithOIDC, error: errors.OIDCProviderError) =>
    log.info('login.request_refused', { code: refused(ctx, error), ...reasonOf(error) })
  provider.on('authorization.error', onRequestError)
  provider.on('device_authorization.error', onRequestError)
  provider.on('revocation.error', onRequestError)
  provider.on('introspection.error', onRequestError)
  // koa's own event, which prints to stderr unless somebody listens; the library's types do not know it
  ;(provider as EventEmitter).on('error', (error: Error) =>
    log.error('login.server_error', { error: error.stack }),
  )
}

/** The code that `postern` makes of it. */
function codeOf(error: errors.OIDCProviderError, isRefresh: boolean): ErrorCode {
  if (error.error_description?.startsWith('IDENTITY_LOCKED: ')) return 'IDENTITY_LOCKED'
  return isRefresh && error.message === 'invalid_grant' ? 'SESSION_ENDED' : 'LOGIN_FAILED'
}

function reasonOf(error: errors.OIDCProviderError) {
  return { error: error.message, description: error.error_description, detail: error.error_detail }
}
