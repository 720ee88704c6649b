import { Backoff } from '@postern/shared/backoff'
import { domainOf, type EmailAddress, parseEmailAddress } from '@postern/shared/email'
import { PosternError } from '@postern/shared/errors'
import type { Logger } from '@postern/shared/logger'
import * as oidc from 'openid-client'
import type { UpstreamIdentity } from '../config/config.ts'
import type { VerifiedAccount } from '../store/identities.ts'
import { readAuthTime, readGroups, readLevel, readMethods } from './provider-claims.ts'

/** The company's provider, seen from the edge as a confidential client. It says who somebody is and nothing
 *  more: what it may vouch for is checked here, before anybody sees a page with a name on it. */

/** A verified account, with what the provider said about the sign-in itself. */
export interface UpstreamAccount extends VerifiedAccount {
  /** Epoch seconds. */
  authTime?: number
  acr?: string
  amr?: string[]
}

export interface UpstreamRequest {
  redirectUri: string
  state: string
  nonce: string
  codeVerifier: string
  /** `login` asks for a fresh sign-in, `select_account` for the choice of another account. */
  prompt: 'login' | 'select_account' | undefined
  loginHint: string | undefined
  maxAgeSeconds: number | undefined
}

export interface UpstreamAnswer {
  /** The callback as the browser requested it. */
  url: URL
  state: string
  nonce: string
  codeVerifier: string
  maxAgeSeconds: number | undefined
}

export interface Upstream {
  issuer: string
  /** Where to send the browser. @throws LOGIN_FAILED the provider cannot be reached */
  requestUrl(request: UpstreamRequest): Promise<URL>
  /** Exchanges the code and checks the person. @throws LOGIN_FAILED · LOGIN_REFUSED */
  accountOf(answer: UpstreamAnswer): Promise<UpstreamAccount>
}

type Claims = Readonly<Record<string, unknown>>

const REQUEST_TIMEOUT_SECONDS = 10
const FIRST_RETRY_MS = 1_000
const MAX_RETRY_MS = 60_000

export function createUpstream(parts: {
  identity: UpstreamIdentity
  clock: () => number
  log: Logger
}): Upstream {
  const { identity } = parts
  const discovered = discoverWhenNeeded(parts)

  return {
    issuer: identity.issuer.href,
    async requestUrl(request) {
      const config = await discovered()
      return oidc.buildAuthorizationUrl(config, await requestParameters(identity, config, request))
    },
    async accountOf(answer) {
      const config = await discovered()
      const tokens = await exchangeCode(config, answer)
      const idToken = tokens.claims()
      if (!idToken) throw new PosternError('LOGIN_FAILED', 'the identity provider sent no ID token')
      const claims = await completeClaims(config, tokens.access_token, idToken, wantedClaims(identity))
      return verifyAccount(identity, { ...claims, iss: idToken.iss, sub: idToken.sub })
    },
  }
}

/** The edge starts whether the provider is up or not; the first login looks for it. After a failure nobody asks
 *  again before the wait is over: a provider in trouble is not helped by every login knocking. */
function discoverWhenNeeded(parts: {
  identity: UpstreamIdentity
  clock: () => number
  log: Logger
}): () => Promise<oidc.Configuration> {
  const { identity, clock, log } = parts
  const backoff = new Backoff(FIRST_RETRY_MS, MAX_RETRY_MS)
  let found: oidc.Configuration | undefined
  let underWay: Promise<oidc.Configuration> | undefined
  let retryAt = 0

  async function discover(): Promise<oidc.Configuration> {
    try {
      found = await requestConfiguration(identity)
      backoff.reset()
      return found
    } catch (cause) {
      retryAt = clock() + backoff.next()
      log.warn('login.provider_unreachable', { issuer: identity.issuer.href, error: reasonOf(cause) })
      throw providerUnreachable(cause)
    } finally {
      underWay = undefined
    }
  }

  return async () => {
    if (found) return found
    if (!underWay && clock() < retryAt) throw providerUnreachable(undefined)
    underWay ??= discover()
    return await underWay
  }
}

async function requestConfiguration(identity: UpstreamIdentity): Promise<oidc.Configuration> {
  const { issuer, clientId, clientSecret } = identity
  const discovery = await oidc.discovery(issuer, clientId, clientSecret, undefined, {
    timeout: REQUEST_TIMEOUT_SECONDS,
    execute: isLoopbackHttp(issuer) ? [oidc.allowInsecureRequests] : [],
  })
  const metadata = discovery.serverMetadata()
  const methods = metadata.token_endpoint_auth_methods_supported ?? ['client_secret_basic']
  const authentication = methods.includes('client_secret_basic')
    ? oidc.ClientSecretBasic(clientSecret)
    : oidc.ClientSecretPost(clientSecret)
  const config = new oidc.Configuration(metadata, clientId, clientSecret, authentication)
  config.timeout = REQUEST_TIMEOUT_SECONDS
  if (isLoopbackHttp(issuer)) oidc.allowInsecureRequests(config)
  // checks the ID token's signature too, although it came over TLS from the token endpoint
  oidc.enableNonRepudiationChecks(config)
  return config
}

/** Plain HTTP is for a provider on this very machine; openid-client refuses it everywhere else. */
function isLoopbackHttp(issuer: URL): boolean {
  const host = issuer.hostname
  const isLoopback = host === 'localhost' || host.endsWith('.localhost') || host === '[::1]'
  return issuer.protocol === 'http:' && (isLoopback || /^127\.\d+\.\d+\.\d+$/.test(host))
}

async function requestParameters(
  identity: UpstreamIdentity,
  config: oidc.Configuration,
  request: UpstreamRequest,
): Promise<Record<string, string>> {
  const parameters: Record<string, string> = {
    redirect_uri: request.redirectUri,
    scope: identity.scopes.join(' '),
    state: request.state,
    nonce: request.nonce,
    code_challenge: await oidc.calculatePKCECodeChallenge(request.codeVerifier),
    code_challenge_method: 'S256',
  }
  if (request.prompt !== undefined) parameters.prompt = supportedPrompt(config, request.prompt)
  if (request.loginHint !== undefined) parameters.login_hint = request.loginHint
  if (request.maxAgeSeconds !== undefined) parameters.max_age = String(request.maxAgeSeconds)
  return parameters
}

/** `select_account` is not known everywhere; a fresh sign-in offers the choice as well. */
function supportedPrompt(config: oidc.Configuration, prompt: 'login' | 'select_account'): string {
  const supported = config.serverMetadata().prompt_values_supported
  return Array.isArray(supported) && supported.includes(prompt) ? prompt : 'login'
}

/** Also compares `iss` of the answer with the provider asked (RFC 9207), `state`, `nonce` and PKCE. */
async function exchangeCode(config: oidc.Configuration, answer: UpstreamAnswer) {
  try {
    return await oidc.authorizationCodeGrant(config, answer.url, {
      expectedState: answer.state,
      expectedNonce: answer.nonce,
      pkceCodeVerifier: answer.codeVerifier,
      idTokenExpected: true,
      ...(answer.maxAgeSeconds === undefined ? {} : { maxAge: answer.maxAgeSeconds }),
    })
  } catch (cause) {
    if (cause instanceof oidc.AuthorizationResponseError && cause.error === 'access_denied') {
      throw new PosternError('LOGIN_REFUSED', 'the identity provider did not let you in', { cause })
    }
    throw new PosternError('LOGIN_FAILED', 'the identity provider did not complete the sign-in', { cause })
  }
}

function wantedClaims(identity: UpstreamIdentity): string[] {
  return ['email', 'email_verified', identity.groupsClaim, ...Object.keys(identity.requiredClaims)]
}

/** Many providers keep claims out of the ID token: what is missing comes from userinfo. Address and "verified"
 *  are one statement and always taken from the same place. */
async function completeClaims(
  config: oidc.Configuration,
  accessToken: string,
  idToken: oidc.IDToken,
  wanted: readonly string[],
): Promise<Claims> {
  const isMissing = wanted.some((claim) => idToken[claim] === undefined)
  if (!isMissing || config.serverMetadata().userinfo_endpoint === undefined) return idToken
  return mergeClaims(idToken, await requestUserInfo(config, accessToken, idToken.sub))
}

async function requestUserInfo(config: oidc.Configuration, accessToken: string, subject: string) {
  try {
    return await oidc.fetchUserInfo(config, accessToken, subject)
  } catch (cause) {
    throw new PosternError('LOGIN_FAILED', 'the identity provider did not say who you are', { cause })
  }
}

/** What the ID token says wins; how and when the person signed in only it can say. */
export function mergeClaims(idToken: Claims, answer: Claims): Claims {
  const { amr: _amr, acr: _acr, auth_time: _authTime, ...userInfo } = answer
  const hasWholeEmail = idToken.email !== undefined && idToken.email_verified !== undefined
  const merged = { ...userInfo, ...idToken }
  if (hasWholeEmail || userInfo.email === undefined) return merged
  return { ...merged, email: userInfo.email, email_verified: userInfo.email_verified }
}

/** Everything the provider must have said. Pure, so that every refusal has its row in a test.
 *  @throws LOGIN_REFUSED */
export function verifyAccount(identity: UpstreamIdentity, claims: Claims): UpstreamAccount {
  const email = verifiedEmail(identity, claims)
  for (const [claim, expected] of Object.entries(identity.requiredClaims)) {
    if (!holds(claims[claim], expected)) {
      throw refused(`the account does not have what this edge requires: ${claim}`, claims)
    }
  }
  const account: UpstreamAccount = {
    issuer: String(claims.iss),
    subject: String(claims.sub),
    email,
    groups: within(claims, () => readGroups(claims, identity.groupsClaim)),
  }
  const [authTime, acr, amr] = within(claims, () => [
    readAuthTime(claims),
    readLevel(claims),
    readMethods(claims),
  ])
  if (authTime !== undefined) account.authTime = authTime
  if (acr !== undefined) account.acr = acr
  if (amr.length > 0) account.amr = amr
  return account
}

function verifiedEmail(identity: UpstreamIdentity, claims: Claims): EmailAddress {
  if (typeof claims.email !== 'string') throw refused('the account has no email address', claims)
  const email = readEmail(claims.email, claims)
  // some providers write the boolean as text
  const isVerified = claims.email_verified === true || claims.email_verified === 'true'
  if (!isVerified && !identity.unsafeAcceptUnverifiedEmail) {
    throw refused(`the identity provider has not verified the address ${email}`, claims)
  }
  if (identity.emailDomains.length > 0 && !identity.emailDomains.includes(domainOf(email))) {
    throw refused(`${email} is not an address of ${identity.emailDomains.join(' or ')}`, claims)
  }
  return email
}

function readEmail(text: string, claims: Claims): EmailAddress {
  try {
    return parseEmailAddress(text)
  } catch (cause) {
    throw refused('the account has an email address that Postern does not understand', claims, cause)
  }
}

function holds(value: unknown, expected: string | number | boolean): boolean {
  return Array.isArray(value) ? value.includes(expected) : value === expected
}

/** Names the account in the refusal, for the record. */
function within<T>(claims: Claims, read: () => T): T {
  try {
    return read()
  } catch (error) {
    if (!(error instanceof PosternError)) throw error
    throw refused(error.message, claims, undefined, error.hint)
  }
}

function refused(message: string, claims: Claims, cause?: unknown, hint?: string): PosternError {
  const details = { subject: textOf(claims.sub), email: textOf(claims.email) }
  return new PosternError('LOGIN_REFUSED', message, {
    details,
    cause,
    ...(hint === undefined ? {} : { hint }),
  })
}

function providerUnreachable(cause: unknown): PosternError {
  return new PosternError('LOGIN_FAILED', 'the identity provider does not answer', {
    hint: 'try again in a minute; if it stays like this, tell the administrator of the edge',
    details: { unreachable: true },
    cause,
  })
}

function textOf(value: unknown): string | undefined {
  return typeof value === 'string' ? value : undefined
}

function reasonOf(cause: unknown): string {
  return cause instanceof Error ? `${cause.name}: ${cause.message}` : String(cause)
}
