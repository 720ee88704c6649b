import { setTimeout as wait } from 'node:timers/promises'
import { PosternError } from '@postern/shared/errors'
import * as oidc from 'openid-client'
import { describeClock } from '../api/clock.ts'
import { generateDpopKey, jwkThumbprint } from '../api/dpop.ts'
import type { EdgeApi } from '../api/edge-api.ts'
import type { EdgeFacts } from '../credentials/known-edge.ts'
import type { Session } from '../credentials/session.ts'
import { printable, tell, tellMore } from '../io.ts'
import { openBrowser } from './browser.ts'
import { offersDeviceFlow, signInWithCode } from './device.ts'
import { expectsBrowser, isInsideSsh, readSurroundings } from './expect-browser.ts'
import { type Loopback, listenForCallback } from './loopback.ts'
import { accessExpiry, createDpopHandle, discoverIssuer, wrapOauth } from './oauth.ts'

/** A login in the browser: authorization code, PKCE, state, nonce and DPoP on a loopback redirect (RFC 8252). Where
 *  no browser can be expected, by a code that is typed elsewhere, when the edge offers that. */

export interface SignInOptions {
  /** `--browser CMD`; `false`: none, see `expectsBrowser`. */
  browser?: string | false | undefined
  timeoutMs?: number
}

const LOGIN_TIMEOUT_MS = 5 * 60_000
/** A browser that was started and shows nothing is told apart from a person who reads only by time. */
const REMIND_AFTER_MS = 20_000
const WORTH_A_WARNING_MS = 30_000

/** What must be known about an edge before anybody signs in there.
 *  @throws EDGE_UNTRUSTED when it claims a name that is not its own */
export async function learnEdge(api: EdgeApi, caPem: string | undefined): Promise<EdgeFacts> {
  const { origin } = api
  const { domain, issuer, clientId } = await api.getEdge()
  if (domain !== new URL(origin).hostname || issuer !== origin) {
    throw new PosternError('EDGE_UNTRUSTED', `${origin} says it is ${issuer} and serves ${domain}`, {
      hint: `sign in with that name: postern login --edge ${printable(issuer)}`,
    })
  }
  if (Math.abs(api.memory.clockOffsetMs) > WORTH_A_WARNING_MS) {
    tell(`warning: ${describeClock(api.memory.clockOffsetMs)}`)
  }
  const metadata = (await discoverIssuer(api, clientId)).serverMetadata()
  if (!metadata.token_endpoint) throw new PosternError('LOGIN_FAILED', `${origin} has no token endpoint`)
  const facts = { origin, domain, issuer, clientId, tokenEndpoint: metadata.token_endpoint }
  return caPem === undefined ? facts : { ...facts, caPem }
}

/** @throws LOGIN_REFUSED with the edge's reason · LOGIN_FAILED */
export async function signIn(api: EdgeApi, facts: EdgeFacts, options: SignInOptions = {}): Promise<Session> {
  const config = await discoverIssuer(api, facts.clientId)
  const dpopKey = generateDpopKey()
  const DPoP = await createDpopHandle(config, api, dpopKey)
  const timeoutMs = options.timeoutMs ?? LOGIN_TIMEOUT_MS
  const hasBrowser = expectsBrowser(options.browser, readSurroundings())
  if (!hasBrowser && offersDeviceFlow(config)) {
    const key = { DPoP, thumbprint: jwkThumbprint(dpopKey) }
    return describeSession(api, dpopKey, await signInWithCode(api, config, key, timeoutMs))
  }
  const checks = {
    pkceCodeVerifier: oidc.randomPKCECodeVerifier(),
    expectedState: oidc.randomState(),
    expectedNonce: oidc.randomNonce(),
  }
  await using loopback = await listenForCallback(checks.expectedState)
  const page = oidc.buildAuthorizationUrl(config, {
    redirect_uri: loopback.redirectUri,
    scope: 'openid email offline_access',
    prompt: 'consent',
    state: checks.expectedState,
    nonce: checks.expectedNonce,
    code_challenge: await oidc.calculatePKCECodeChallenge(checks.pkceCodeVerifier),
    code_challenge_method: 'S256',
    dpop_jkt: jwkThumbprint(dpopKey),
  })
  showPage(page.href, hasBrowser ? options.browser : false)
  if (!hasBrowser) adviseWithoutBrowser(loopback.redirectUri)

  try {
    const callback = await waitForAnswer(loopback, timeoutMs, hasBrowser)
    const tokens = await wrapOauth(
      api,
      oidc.authorizationCodeGrant(config, callback, checks, undefined, { DPoP }),
    )
    const session = await describeSession(api, dpopKey, tokens)
    await loopback.finish({
      title: 'You are signed in',
      text: `Postern on this machine now acts for ${session.email}. You can close this tab and go back to your terminal.`,
    })
    return session
  } catch (error) {
    await loopback.finish({
      title: 'You are not signed in',
      text: `${(error as Error).message}. You can close this tab; your terminal says what to do next.`,
    })
    throw error
  }
}

function showPage(url: string, browser: string | false | undefined): void {
  tell(
    browser === false
      ? 'to sign in, open this page:'
      : 'to sign in, use the page that opens now, or open it yourself:',
  )
  tellMore(url)
  if (browser === false) return
  openBrowser(url, browser).catch((error: PosternError) => {
    tell(error.message)
    tellMore(error.hint)
  })
}

/** The page has to be opened here, because its answer comes to a port of this machine. */
function adviseWithoutBrowser(redirectUri: string): void {
  const { port } = new URL(redirectUri)
  tell('the answer comes to this machine: sign-in by a code (login.device) is switched off at the edge')
  if (isInsideSsh(process.env)) {
    tellMore(`from the machine you sit at, first run: ssh -N -L ${port}:127.0.0.1:${port} THIS-MACHINE`)
  }
}

async function waitForAnswer(loopback: Loopback, timeoutMs: number, hasBrowser: boolean): Promise<URL> {
  const enough = new AbortController()
  const timeout = wait(timeoutMs, undefined, { signal: enough.signal }).then(() => {
    throw new PosternError('LOGIN_FAILED', 'nobody signed in within the time for it')
  })
  const reminder = wait(REMIND_AFTER_MS, undefined, { signal: enough.signal }).then(() => {
    if (hasBrowser) {
      tell('no answer from a browser yet: open the page above yourself, or try again with --no-browser')
    }
  })
  try {
    return await Promise.race([loopback.answer, timeout])
  } finally {
    enough.abort()
    timeout.catch(() => undefined)
    reminder.catch(() => undefined)
  }
}

/** Asks the edge who that is now, which proves that the tokens work. */
async function describeSession(
  api: EdgeApi,
  dpopKey: object,
  tokens: oidc.TokenEndpointResponse,
): Promise<Session> {
  if (!tokens.refresh_token) throw new PosternError('LOGIN_FAILED', 'the edge gave no refresh token')
  const session = {
    accessToken: tokens.access_token,
    accessExpiresAt: accessExpiry(api, tokens),
    refreshToken: tokens.refresh_token,
    expiresAt: 0,
    email: '',
    dpopKey: dpopKey as Record<string, unknown>,
  }
  const answer = await api.getSession(session)
  return { ...session, email: answer.identity.email, expiresAt: answer.session.expiresAt }
}
