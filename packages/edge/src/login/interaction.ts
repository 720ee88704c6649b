import { createHash, randomBytes } from 'node:crypto'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { PosternError, toPosternError } from '@postern/shared/errors'
import type { SessionFacts } from '@postern/shared/identity'
import type { Logger } from '@postern/shared/logger'
import type { Kysely } from 'kysely'
import type Provider from 'oidc-provider'
import type { InteractionResults } from 'oidc-provider'
import * as oidc from 'openid-client'
import type { Strangers } from '../limits/strangers.ts'
import { describeLock, refuseLocked } from '../revocation/locks.ts'
import { upsertIdentity } from '../store/identities.ts'
import type { Database } from '../store/schema.ts'
import { createSession } from '../store/sessions.ts'
import {
  createUpstreamLogin,
  dropUpstreamLogin,
  findVerifiedAccount,
  storeVerifiedAccount,
  takeUpstreamLogin,
  takeVerifiedAccount,
  type UpstreamLogin,
} from '../store/upstream-logins.ts'
import { clientAddressOf } from './client-address.ts'
import { devAccount, devIssuer } from './dev-identity.ts'
import {
  approveDevice,
  type CodeAttempts,
  claimDevice,
  denyDevice,
  findWaitingDevice,
  GIVEN_UP,
  requireFreshSignIn,
  type WaitingDevice,
} from './device-codes.ts'
import { readForm, refuseOtherOrigin, requireOwnOrigin } from './form-post.ts'
import { INTERACTION_SECONDS, SCOPES } from './issuer.ts'
import { beganHere, clearCookie, clearDeviceCookie, readCookie, setCookie } from './issuer-cookies.ts'
import { showConfirm, showDeviceConfirm, showDevSignIn, showError, showGivenUp, startPage } from './pages.ts'
import type { PendingLogins } from './pending-logins.ts'
import type { RecordLogin, Sessions } from './sessions.ts'
import type { Upstream, UpstreamAccount } from './upstream.ts'

/** One login as the person sees it: to the provider, back with a name, and a page with one button. Every step
 *  needs the cookies of the browser that began; only the POST of that button grants anything. */

export interface InteractionParts {
  origin: string
  provider: Provider
  /** Undefined: the development sign-in. */
  upstream: Upstream | undefined
  sessions: Sessions
  pending: PendingLogins
  codeAttempts: CodeAttempts
  sessionMs: number
  db: Kysely<Database>
  clock: () => number
  log: Logger
  record: RecordLogin
  strangers: Pick<Strangers, 'admitLogin' | 'countLogin' | 'judge'>
  /** Told of everybody who signs in, once address and groups of this login are written. */
  identityUpdated: (identityId: string) => Promise<void>
}

export interface Exchange {
  req: IncomingMessage
  res: ServerResponse
  url: URL
}

export const CALLBACK_PATH = '/login/callback'
export const DEV_PATH = '/login/dev'

type OpenInteraction = InstanceType<Provider['Interaction']>

/** `GET /login/:uid`: sends the browser to the provider, or shows the development sign-in. */
export async function beginLogin(exchange: Exchange, uid: string, parts: InteractionParts): Promise<void> {
  const { db, clock, upstream } = parts
  const interaction = await openInteraction(exchange, uid, parts)
  parts.pending.attempt(uid, clientAddressOf(exchange.req), clock())
  const keys = { state: `${tagOf(uid)}.${oidc.randomState()}`, cookie: randomBytes(32).toString('base64url') }
  const login: UpstreamLogin = {
    interactionUid: uid,
    codeVerifier: oidc.randomPKCECodeVerifier(),
    nonce: oidc.randomNonce(),
    expiresAt: clock() + INTERACTION_SECONDS * 1_000,
  }
  const target = upstream && (await requestUrl(upstream, exchange, { interaction, login, keys }, parts))
  const before = readCookie(exchange.req, loginCookieOf(tagOf(uid)))
  if (before !== undefined) await dropUpstreamLogin(db, before)
  await createUpstreamLogin(db, keys, login, clock())
  setCookie(exchange.res, loginCookieOf(tagOf(uid)), keys.cookie, INTERACTION_SECONDS)
  if (target) redirect(exchange.res, target.href)
  else send(exchange.res, showDevSignIn(exchange.res, { actionPath: devActionOf(keys.state) }))
}

function requestUrl(
  upstream: Upstream,
  exchange: Exchange,
  attempt: { interaction: OpenInteraction; login: UpstreamLogin; keys: { state: string } },
  parts: InteractionParts,
): Promise<URL> {
  const { params, deviceCode } = attempt.interaction
  const wantsOther = exchange.url.searchParams.get('account') === 'other'
  const wantsFresh = (textOf(params.prompt) ?? '').split(' ').includes('login')
  return upstream.requestUrl({
    redirectUri: `${parts.origin}${CALLBACK_PATH}`,
    state: attempt.keys.state,
    nonce: attempt.login.nonce,
    codeVerifier: attempt.login.codeVerifier,
    // for a device the sign-in must be fresh, which offers the choice of an account as well
    prompt: wantsOther && !deviceCode ? 'select_account' : wantsFresh ? 'login' : undefined,
    loginHint: wantsOther ? undefined : textOf(params.login_hint),
    maxAgeSeconds: maxAgeOf(params.max_age),
  })
}

/** `GET /login/callback`: the provider's answer. The browser's cookie is compared with the one stored beside
 *  `state` before the code is touched; the account then waits under that cookie, not under an id. */
export async function finishUpstream(exchange: Exchange, parts: InteractionParts): Promise<void> {
  const { upstream } = parts
  if (!upstream) throw new PosternError('NOT_FOUND', 'there is no such page')
  const state = exchange.url.searchParams.get('state') ?? ''
  const { cookie, login } = await takeLogin(exchange, state, parts)
  const interaction = await openInteraction(exchange, login.interactionUid, parts)
  const isDevice = interaction.deviceCode !== undefined
  // for a device every sign-in is asked for with max_age=0, which few providers answer: see requireFreshSignIn
  const maxAgeSeconds = isDevice ? undefined : maxAgeOf(interaction.params.max_age)
  let account: UpstreamAccount
  try {
    account = await upstream.accountOf({ ...login, url: exchange.url, state, maxAgeSeconds })
    if (isDevice) requireFreshSignIn(account, login.expiresAt - INTERACTION_SECONDS * 1_000)
  } catch (error) {
    await dropUpstreamLogin(parts.db, cookie)
    return await refuseAccount(exchange, interaction, error, parts)
  }
  await awaitConfirmation(exchange, { cookie, login, account }, parts)
}

/** `POST /login/dev`: the same as the provider's answer, from the form. It grants nothing, so a program without
 *  `Origin` may send it. */
export async function finishDevSignIn(exchange: Exchange, parts: InteractionParts): Promise<void> {
  if (parts.upstream) throw new PosternError('NOT_FOUND', 'there is no such page')
  refuseOtherOrigin(exchange.req, parts.origin)
  const form = await readForm(exchange.req)
  const state = exchange.url.searchParams.get('state') ?? ''
  let account: UpstreamAccount
  try {
    account = devAccount(parts.origin, form)
  } catch (error) {
    const problem = toPosternError(error, 'ADDRESS_INVALID', 'this is not an email address').message
    return send(exchange.res, showDevSignIn(exchange.res, { actionPath: devActionOf(state), problem }))
  }
  const { cookie, login } = await takeLogin(exchange, state, parts)
  await openInteraction(exchange, login.interactionUid, parts)
  await awaitConfirmation(exchange, { cookie, login, account }, parts)
}

async function takeLogin(exchange: Exchange, state: string, parts: InteractionParts) {
  const cookie = readCookie(exchange.req, loginCookieOf(state.split('.', 1)[0]!))
  const login = cookie && (await takeUpstreamLogin(parts.db, { state, cookie }, parts.clock()))
  if (!cookie || !login) throw notThisBrowser(parts)
  return { cookie, login }
}

async function awaitConfirmation(
  exchange: Exchange,
  signedIn: { cookie: string; login: UpstreamLogin; account: UpstreamAccount },
  parts: InteractionParts,
): Promise<void> {
  const { cookie, login, account } = signedIn
  const isStored = await storeVerifiedAccount(parts.db, cookie, account, parts.clock())
  if (!isStored) throw notThisBrowser(parts)
  // a page of its own: its address holds neither code nor state, and reloading it does no harm
  redirect(exchange.res, confirmPathOf(login.interactionUid))
}

/** `GET /login/:uid/confirm`: account, client, address, one button. */
export async function askConfirmation(
  exchange: Exchange,
  uid: string,
  parts: InteractionParts,
): Promise<void> {
  const interaction = await openInteraction(exchange, uid, parts)
  const cookie = readCookie(exchange.req, loginCookieOf(tagOf(uid)))
  const waiting = cookie && (await findVerifiedAccount(parts.db, cookie, parts.clock()))
  if (!waiting || waiting.login.interactionUid !== uid) throw notThisBrowser(parts)
  const client = await parts.provider.Client.find(textOf(interaction.params.client_id) ?? '')
  const page = {
    email: waiting.account.email,
    issuer: waiting.account.issuer,
    clientName: client?.clientName ?? textOf(interaction.params.client_id) ?? 'an unknown program',
    clientAddress: clientAddressOf(exchange.req),
    confirmPath: confirmPathOf(uid),
    anotherAccountPath: anotherAccountPathOf(uid),
  }
  const device = await deviceOf(interaction, parts)
  const body = device
    ? showDeviceConfirm(exchange.res, { ...page, userCode: device.userCode, deviceAddress: device.address })
    : showConfirm(exchange.res, { ...page, redirectOrigin: redirectOriginOf(interaction) })
  send(exchange.res, body)
}

/** `POST /login/:uid/confirm`: the one place where a session begins. The dev page believes any address anyway, so
 *  there a program may leave `Origin` out; pages of other sites are refused in both cases. */
export async function confirmLogin(exchange: Exchange, uid: string, parts: InteractionParts): Promise<void> {
  const checkOrigin = parts.upstream ? requireOwnOrigin : refuseOtherOrigin
  checkOrigin(exchange.req, parts.origin)
  exchange.req.resume()
  const interaction = await openInteraction(exchange, uid, parts)
  const cookieName = loginCookieOf(tagOf(uid))
  const cookie = readCookie(exchange.req, cookieName)
  const taken = cookie && (await takeVerifiedAccount(parts.db, cookie, parts.clock()))
  if (!taken || taken.login.interactionUid !== uid) throw notThisBrowser(parts)
  const account: UpstreamAccount = taken.account
  const device = await deviceOf(interaction, parts)
  if (device && !(await claimDevice(parts.db, device, parts.clock()))) throw codeIsOver()
  const granted = await beginSession(exchange, { interaction, account, device }, parts).catch(
    async (error: unknown) => {
      // nobody else can answer it any more
      if (device) await denyDevice(device)
      if (!isLock(error)) throw error
      await refuseAccount(exchange, interaction, error, parts)
    },
  )
  if (!granted) return
  if (device) {
    await approveDevice(device, { ...granted, accountId: granted.identityId, account })
    await finishDevice(exchange, interaction, device, parts)
  } else {
    interaction.result = resultOf(granted.identityId, granted.grantId, account)
    await interaction.persist()
  }
  parts.pending.remove(uid)
  clearCookie(exchange.res, cookieName)
  redirect(exchange.res, interaction.returnTo)
}

/** The program that waits for this sign-in elsewhere; undefined for one in the browser's own machine.
 *  @throws LOGIN_FAILED it does not wait any more */
async function deviceOf(
  { deviceCode }: OpenInteraction,
  { provider }: InteractionParts,
): Promise<WaitingDevice | undefined> {
  if (deviceCode === undefined) return undefined
  const device = await findWaitingDevice(provider, deviceCode)
  if (!device) throw codeIsOver()
  return device
}

function codeIsOver(): PosternError {
  return new PosternError('LOGIN_FAILED', 'the code was used already, or is too old', {
    hint: 'run the command again and type its new code',
  })
}

async function finishDevice(
  exchange: Exchange,
  interaction: OpenInteraction,
  device: WaitingDevice,
  parts: InteractionParts,
): Promise<void> {
  await interaction.destroy()
  parts.pending.remove(device.code.jti)
  clearDeviceCookie(exchange.res, interaction.uid)
}

/** Session and grant, recorded; a login that cannot be recorded is taken back. */
async function beginSession(
  exchange: Exchange,
  login: { interaction: OpenInteraction; account: UpstreamAccount; device: WaitingDevice | undefined },
  parts: InteractionParts,
): Promise<{ identityId: string; grantId: string; scope: string }> {
  const { db, clock, provider } = parts
  const { params } = login.interaction
  const now = clock()
  const clientId = textOf(params.client_id) ?? ''
  const browserAddress = clientAddressOf(exchange.req)
  // who holds the session is what counts: for a device not the browser, which only confirmed it
  const clientAddress = login.device?.address ?? browserAddress
  const kind = login.device ? 'device' : 'browser'
  const identity = await upsertIdentity(db, login.account, now)
  // at once: what follows may fail, and what this login has changed stays
  await parts.identityUpdated(identity.id)
  await refuseLocked(db, identity, now)
  const grant = new provider.Grant({ accountId: identity.id, clientId })
  const requested = (textOf(params.scope) ?? '').split(' ')
  const scope = SCOPES.filter((one) => requested.includes(one)).join(' ')
  grant.addOIDCScope(scope)
  const grantId = await grant.save()
  const session = await createSession(
    db,
    {
      identityId: identity.id,
      grantId,
      clientAddress,
      expiresAt: now + parts.sessionMs,
      ...factsOf(login.account, kind, now),
    },
    now,
  )
  const { issuer, subject, email } = identity
  const who = { identityId: identity.id, sessionId: session.id, issuer, subject, email }
  try {
    await parts.record({
      type: 'login.ok',
      ...who,
      kind,
      clientId,
      clientAddress,
      ...(login.device ? { confirmedFrom: browserAddress } : {}),
      expiresAt: session.expiresAt,
    })
  } catch (cause) {
    await parts.sessions.end(session.id, 'not recorded')
    throw toPosternError(cause, 'RECORD_FAILED', 'the sign-in could not be recorded')
  }
  parts.log.info('login.ok', { ...who, kind, clientAddress })
  return { identityId: identity.id, grantId, scope }
}

/** A provider whose clock is ahead does not make a sign-in younger than it can be. */
function factsOf(account: UpstreamAccount, kind: SessionFacts['kind'], now: number): SessionFacts {
  const { authTime, acr, amr = [] } = account
  return { kind, amr, acr, authTime: authTime === undefined ? undefined : Math.min(authTime * 1_000, now) }
}

function resultOf(accountId: string, grantId: string, account: UpstreamAccount): InteractionResults {
  const { authTime, acr, amr } = account
  const login = {
    accountId,
    remember: false,
    ...(authTime === undefined ? {} : { ts: authTime }),
    ...(acr === undefined ? {} : { acr }),
    ...(amr === undefined ? {} : { amr }),
  }
  return { login, consent: { grantId } }
}

/** `POST /login/:uid/cancel`: tells the command line that nothing came of it, so that it need not wait. */
export async function cancelLogin(exchange: Exchange, uid: string, parts: InteractionParts): Promise<void> {
  requireOwnOrigin(exchange.req, parts.origin)
  exchange.req.resume()
  const interaction = await openInteraction(exchange, uid, parts)
  const cookieName = loginCookieOf(tagOf(uid))
  const cookie = readCookie(exchange.req, cookieName)
  if (cookie !== undefined) await dropUpstreamLogin(parts.db, cookie)
  const device = await deviceOf(interaction, parts)
  parts.pending.remove(uid)
  clearCookie(exchange.res, cookieName)
  if (device) {
    if (!(await claimDevice(parts.db, device, parts.clock()))) throw codeIsOver()
    await denyDevice(device, reasonOf(interaction))
    await finishDevice(exchange, interaction, device, parts)
    return send(exchange.res, showGivenUp(exchange.res))
  }
  interaction.result = { error: 'access_denied', error_description: reasonOf(interaction) }
  await interaction.persist()
  redirect(exchange.res, interaction.returnTo)
}

/** The provider answered, and the answer was not good enough. Recorded; the person may choose another account. */
async function refuseAccount(
  exchange: Exchange,
  interaction: OpenInteraction,
  error: unknown,
  parts: InteractionParts,
): Promise<void> {
  const refusal = toPosternError(error, 'LOGIN_FAILED', 'the sign-in failed')
  const clientAddress = clientAddressOf(exchange.req)
  parts.strangers.countLogin(clientAddress)
  await parts.record({
    type: 'login.refused',
    code: refusal.code,
    reason: refusal.message,
    issuer: parts.upstream?.issuer ?? devIssuer(parts.origin),
    subject: textOf(refusal.details?.subject),
    email: textOf(refusal.details?.email),
    clientAddress,
  })
  parts.log.info('login.refused', { code: refusal.code, reason: refusal.message, clientAddress })
  if (refusal.cause !== undefined) parts.log.warn('login.provider_failed', failureOf(refusal.cause))
  await rememberReason(interaction, isLock(refusal) ? describeLock(refusal) : refusal.message)
  const retry = {
    anotherAccountPath: anotherAccountPathOf(interaction.uid),
    cancelPath: `/login/${interaction.uid}/cancel`,
    redirectOrigin: redirectOriginOf(interaction),
  }
  const { code, message, hint } = refusal
  const status = code === 'LOGIN_REFUSED' || code === 'IDENTITY_LOCKED' ? 403 : 502
  send(exchange.res, showError(exchange.res, { code, message, hint, retry }, status))
}

function isLock(error: unknown): boolean {
  return error instanceof PosternError && error.code === 'IDENTITY_LOCKED'
}

/** What the page says, for the program that waits: it hears of it when the person ends the sign-in. */
async function rememberReason(interaction: OpenInteraction, message: string): Promise<void> {
  interaction.lastSubmission = { refused: toErrorDescription(message) }
  await interaction.persist()
}

function reasonOf(interaction: OpenInteraction): string {
  return textOf(interaction.lastSubmission?.refused) ?? GIVEN_UP
}

const MAX_DESCRIPTION = 300

/** The characters that RFC 6749 §5.2 allows there; an address may hold others. */
export function toErrorDescription(message: string): string {
  const text = message.replaceAll('"', "'").replace(/[^\x20-\x7e]|\\/g, '?')
  return text.slice(0, MAX_DESCRIPTION)
}

/** The interaction, for the browser that began it and nobody else.
 *  @throws LOGIN_FAILED */
async function openInteraction(
  exchange: Exchange,
  uid: string,
  parts: InteractionParts,
): Promise<OpenInteraction> {
  if (!beganHere(parts.provider, exchange, uid)) throw notThisBrowser(parts)
  const interaction = await parts.provider.Interaction.find(uid)
  if (!interaction || interaction.result !== undefined) throw notThisBrowser(parts)
  return interaction
}

function notThisBrowser(parts: InteractionParts): PosternError {
  return new PosternError(
    'LOGIN_FAILED',
    'this sign-in was not started in this browser, is finished already, or is too old',
    { hint: startPage(parts.origin) },
  )
}

/** Names a login's cookie without its uid, which seals the login's record in the store. */
function tagOf(uid: string): string {
  return createHash('sha256').update(uid).digest('hex').slice(0, 16)
}

function loginCookieOf(tag: string): string {
  return `__Host-postern-login-${tag}`
}

function devActionOf(state: string): string {
  return `${DEV_PATH}?state=${encodeURIComponent(state)}`
}

function confirmPathOf(uid: string): string {
  return `/login/${uid}/confirm`
}

function anotherAccountPathOf(uid: string): string {
  return `/login/${uid}?account=other`
}

/** Undefined where nothing waits on a loopback port: a device's login. */
function redirectOriginOf(interaction: OpenInteraction): string | undefined {
  const uri = textOf(interaction.params.redirect_uri)
  return uri === undefined ? undefined : new URL(uri).origin
}

export function redirect(res: ServerResponse, location: string): void {
  res.setHeader('Cache-Control', 'no-store')
  res.setHeader('Referrer-Policy', 'no-referrer')
  res.writeHead(303, { Location: location, 'Content-Length': '0' }).end()
}

export function send(res: ServerResponse, body: string): void {
  res.setHeader('Content-Length', Buffer.byteLength(body))
  res.end(body)
}

function maxAgeOf(value: unknown): number | undefined {
  const seconds = value === undefined ? Number.NaN : Number(value)
  return Number.isSafeInteger(seconds) && seconds >= 0 ? seconds : undefined
}

function textOf(value: unknown): string | undefined {
  return typeof value === 'string' ? value : undefined
}

/** What may be logged of a provider's failure: names and codes, no response and no token. */
function failureOf(cause: unknown): Record<string, unknown> {
  if (!(cause instanceof Error)) return { error: 'unknown' }
  const { code, error } = cause as { code?: unknown; error?: unknown }
  return { name: cause.name, message: cause.message, code: textOf(code), oauthError: textOf(error) }
}
