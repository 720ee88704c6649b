import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { after, before, describe, test } from 'node:test'
import { type Form, FormBrowser, type Page, readForm } from '../demo/dev-login.ts'
import { findFreePort } from '../demo/free-port.ts'
import { type EdgeProcess, startEdge } from './support/edge-process.ts'
import {
  authorizationUrl,
  callApi,
  freshNonce,
  hashOf,
  makePeerKey,
  makeProof,
  type PeerSession,
  requestEdge,
  requestTokens,
  signInByHand,
  signJws,
} from './support/oauth-peer.ts'
import { startUpstreamProvider, type UpstreamProvider } from './support/upstream-provider.ts'

/** Attacks on the sign-in, each from its beginning to where it ends, at the built edge with a real provider.
 *  Many more, one refusal each, are tested in packages/edge/src/login: login-interaction.test.ts (cookies, pages,
 *  origins, what works once), login-tokens.test.ts (proofs, nonces, clocks, races for a code), login-issuer.test.ts
 *  (redirect addresses, PKCE, paths, bodies), login-device.test.ts (codes). */

const VICTIM = 'victim@mycorp.com'
const ATTACKER = 'attacker@elsewhere.example'

let provider: UpstreamProvider
let edge: EdgeProcess

before(async () => {
  const port = await findFreePort()
  provider = await startUpstreamProvider({
    edgeOrigin: `https://edge.localhost:${port}`,
    accounts: {
      [VICTIM]: { sub: 'v1', email: VICTIM, email_verified: true },
      [ATTACKER]: { sub: 'a1', email: ATTACKER, email_verified: true },
    },
  })
  edge = await startEdge({ port, identity: provider.identity, config: { login: { device: 'on' } } })
})
after(async () => {
  await edge?.[Symbol.asyncDispose]()
  await provider?.[Symbol.asyncDispose]()
})

const newLink = (more: Record<string, string> = {}) =>
  authorizationUrl(edge, {
    code_challenge: hashOf('v'.repeat(43)),
    dpop_jkt: makePeerKey().thumbprint,
    ...more,
  })
const newBrowser = (stopAt: (url: URL) => boolean = () => false) =>
  new FormBrowser({
    caFile: edge.caFile,
    stopAt: (url) => url.pathname === '/callback' || stopAt(url),
  })

/** Types the name at the provider, unless it knows the browser. */
async function passProvider(browser: FormBrowser, page: Page, account: string): Promise<Page> {
  if (page.url.origin !== provider.issuer) return page
  return browser.submit(page, readForm(page.html)!, account)
}

const hasCode = (browser: FormBrowser) =>
  browser.visited.some((url) => url.pathname === '/callback' && url.searchParams.has('code'))

describe('links and pages', () => {
  test('a link with the attacker’s loopback port, opened by somebody with single sign-on: no code without a click', async () => {
    const listener = createServer((_request, response) => response.end()).listen(0, '127.0.0.1')
    await once(listener, 'listening')
    const { port } = listener.address() as AddressInfo
    const hits: string[] = []
    listener.on('request', (request) => hits.push(request.url ?? ''))
    try {
      const redirect_uri = `http://127.0.0.1:${port}/callback`
      const browser = new FormBrowser({ caFile: edge.caFile })
      await passProvider(browser, await browser.open(new URL(newLink())), VICTIM)
      const requestsBefore = provider.authorizationRequests.length
      const link = newLink({ redirect_uri })
      const page = await browser.open(new URL(link))
      // the provider was asked, knew the browser and sent it straight back
      assert.equal(provider.authorizationRequests.length, requestsBefore + 1)
      assert.equal(page.url.origin, edge.origin)
      assert.match(page.html, new RegExp(VICTIM))
      assert.match(page.html, /127\.0\.0\.1/)
      assert.equal(hits.length, 0)
      assert.equal(hasCode(browser), false)
      // `prompt` cannot be talked away
      const silent = await browser.open(new URL(newLink({ prompt: 'none', redirect_uri })))
      assert.equal(silent.url.searchParams.has('code'), false)
      assert.deepEqual(
        hits.filter((url) => url.includes('code=')),
        [],
      )
    } finally {
      listener.close()
      listener.closeAllConnections()
    }
  })

  for (const redirect_uri of [
    'http://127.0.0.1.attacker.example/callback',
    'http://127.0.0.1@attacker.example/callback',
    'http://localhost/callback',
    'http://[::1]/callback',
    'https://127.0.0.1/callback',
    'http://127.0.0.1:9/other',
    'http://127.0.0.1:9/callback#x',
  ]) {
    test(`a link that leads to ${redirect_uri} leads nowhere`, async () => {
      const browser = newBrowser()
      const page = await browser.open(new URL(newLink({ redirect_uri })))
      assert.equal(page.status, 400)
      assert.equal(page.url.origin, edge.origin)
    })
  }

  test('the attacker’s own answer of the provider, opened by the victim: refused, and no use to anybody', async () => {
    const attacker = newBrowser((url) => url.pathname === '/login/callback')
    const atProvider = await attacker.open(new URL(newLink()))
    const answer = (await passProvider(attacker, atProvider, ATTACKER)).url
    assert.equal(answer.pathname, '/login/callback')
    assert.ok(answer.searchParams.has('code'))

    // a victim who has begun nothing, and one who is in the middle of a login
    for (const begins of [false, true]) {
      const victim = newBrowser()
      const signIn = begins ? await victim.open(new URL(newLink())) : undefined
      const page = await victim.open(answer)
      assert.equal(page.status, 400, page.html)
      assert.doesNotMatch(page.html, /Continue as|attacker@/)
      if (!signIn) continue
      const own = await passProvider(victim, signIn, VICTIM)
      assert.match(own.html, new RegExp(VICTIM), 'the victim’s own login was not harmed')
    }
  })

  test('cookies planted from a service’s sub-domain carry nobody into another login', async () => {
    const attacker = newBrowser()
    const page = await passProvider(attacker, await attacker.open(new URL(newLink())), ATTACKER)
    assert.match(page.html, new RegExp(ATTACKER))
    const cookies = attacker.cookiesOf(edge.domain)
    for (const name of cookies.keys()) assert.match(name, /^__Host-/, 'a browser lets a sub-domain plant it')

    // what <label>.<domain> can set for the whole domain are the same names without the prefix
    const victim = newBrowser()
    for (const [name, value] of cookies) victim.plant(edge.domain, name.replace('__Host-', ''), value)
    for (const url of attacker.visited.filter((visited) => visited.origin === edge.origin)) {
      const opened = await victim.open(url)
      assert.doesNotMatch(opened.html, /Continue as|attacker@/, url.pathname)
    }
    assert.equal(hasCode(victim), false)
  })

  test('an answer that names another issuer: refused before its code is sent anywhere', async () => {
    const browser = newBrowser((url) => url.pathname === '/login/callback' && !url.searchParams.has('mixed'))
    const signIn = await browser.open(new URL(newLink()))
    const answer = new URL((await passProvider(browser, signIn, VICTIM)).url)
    answer.searchParams.set('iss', 'https://accounts.attacker.example')
    answer.searchParams.set('mixed', '1')
    const page = await browser.open(answer)
    assert.ok(page.status >= 400)
    assert.match(page.html, /LOGIN_FAILED/)
    assert.doesNotMatch(page.html, /Continue as/)
  })

  test('Host that differs from the name of the connection: 421 everywhere', async () => {
    const port = new URL(edge.origin).port
    const paths = ['/v1/edge', '/oauth/auth', '/.well-known/openid-configuration', '/login/callback']
    for (const path of paths) {
      for (const host of [
        `attacker.example:${port}`,
        `x.${edge.domain}:${port}`,
        edge.domain,
        `mtls.${edge.domain}`,
      ]) {
        const { status } = await requestEdge(edge, { path, headers: { host } })
        assert.equal(status, 421, `${path} as ${host}`)
      }
    }
  })
})

describe('a device code that is sent to a victim', () => {
  const ATTACKERS_ADDRESS = '127.0.0.9'
  const key = makePeerKey()

  async function askForCode(): Promise<{ userCode: string; deviceCode: string }> {
    const parameters = { client_id: 'postern-cli', scope: 'openid email offline_access' }
    const { status, text, json } = await requestEdge(edge, {
      path: '/oauth/device/authorize',
      body: new URLSearchParams({ ...parameters, dpop_jkt: key.thumbprint }),
      localAddress: ATTACKERS_ADDRESS,
    })
    assert.equal(status, 200, text)
    assert.equal(
      json.verification_uri_complete,
      undefined,
      'there is no link to send that has the code in it',
    )
    return { userCode: json.user_code, deviceCode: json.device_code }
  }

  const poll = async (deviceCode: string) => {
    const grant_type = 'urn:ietf:params:oauth:grant-type:device_code'
    return (await requestTokens(edge, key, { grant_type, device_code: deviceCode })).json
  }

  async function typeCode(browser: FormBrowser, userCode: string): Promise<Page> {
    const page = await browser.open(new URL('/device', edge.origin))
    const form = readForm(page.html) as Form
    form.fields.set('user_code', userCode)
    return browser.submit(page, form, '')
  }

  test('a link with the code in it types nothing; a single sign-on does not do; the page shows who asked', async () => {
    const { userCode, deviceCode } = await askForCode()
    const victim = newBrowser()
    const own = await passProvider(victim, await victim.open(new URL(newLink())), VICTIM)
    assert.match(own.html, new RegExp(VICTIM), 'the provider knows this browser from here on')
    const linked = await victim.open(new URL(`/device?user_code=${userCode}`, edge.origin))
    assert.ok(!linked.html.includes(userCode))

    const requestsBefore = provider.authorizationRequests.length
    const signIn = await typeCode(victim, userCode)
    assert.equal(signIn.url.origin, provider.issuer, 'asked for a fresh sign-in')
    const [asked] = provider.authorizationRequests.slice(requestsBefore)
    assert.equal(asked?.searchParams.get('prompt'), 'login')
    const page = await passProvider(victim, signIn, VICTIM)
    assert.equal(page.status, 200, page.html)
    assert.ok(page.html.includes(userCode) && page.html.includes(VICTIM))
    assert.match(page.html, /<strong>127\.0\.0\.9<\/strong>; you are at 127\.0\.0\.1/)
    assert.match(page.html, /If somebody sent you the code, close this page/)
    // whoever closes it has given nothing
    assert.equal((await poll(deviceCode)).error, 'authorization_pending')
  })

  test('codes cannot be guessed: after ten wrong ones not even the right one is looked at', async () => {
    const { userCode, deviceCode } = await askForCode()
    const guesser = newBrowser()
    for (let tries = 0; tries < 10; tries++) {
      const page = await typeCode(guesser, `BBBB-BBB${'BCDFGHJKLM'[tries]}`)
      assert.equal(page.status, 400)
      assert.match(page.html, /No program waits for this code/)
    }
    // another browser changes nothing
    const late = await typeCode(newBrowser(), userCode)
    assert.equal(late.status, 429, late.html)
    assert.match(late.html, /RATE_LIMITED/)
    assert.equal((await poll(deviceCode)).error, 'authorization_pending')
  })
})

describe('tokens and proofs', () => {
  let dev: EdgeProcess
  let session: PeerSession
  let thief: PeerSession
  const path = '/v1/session'

  before(async () => {
    dev = await startEdge()
    session = await signInByHand(dev, VICTIM)
    thief = await signInByHand(dev, ATTACKER)
  })
  after(() => dev?.[Symbol.asyncDispose]())

  const send = (dpop: string | undefined, authorization = `DPoP ${session.accessToken}`) =>
    requestEdge(dev, { path, headers: { authorization, ...(dpop === undefined ? {} : { dpop }) } })
  const proof = (claims: Record<string, unknown> = {}) =>
    makeProof(dev, session.key, { method: 'GET', path, token: session.accessToken }, claims)

  test('a proof that was seen on its way is of no use', async () => {
    const once = await proof()
    assert.equal((await send(once)).status, 200)
    assert.equal((await send(once)).status, 401)
    assert.equal((await send(await proof({ jti: 'same-for-both' }))).status, 200)
    assert.equal((await send(await proof({ jti: 'same-for-both' }))).status, 401)
  })

  for (const [what, claims] of [
    ['method', () => ({ htm: 'DELETE' })],
    ['path', () => ({ htu: `${dev.origin}/v1/audit` })],
    ['host', () => ({ htu: 'https://attacker.example/v1/session' })],
    ['token', () => ({ ath: hashOf('another') })],
    ['nonce', () => ({ nonce: 'x'.repeat(43) })],
    ['time', () => ({ iat: Math.floor(Date.now() / 1_000) - 600 })],
  ] as const) {
    test(`a proof for another ${what} is refused`, async () => {
      const { status, text } = await send(await proof(claims()))
      assert.ok(status === 401 || (what === 'time' && status === 400), text)
      assert.ok(!text.includes(session.accessToken))
    })
  }

  test('a stolen token without its key is worth nothing, at the API and at the token endpoint', async () => {
    assert.equal((await send(undefined)).status, 401)
    assert.equal((await send(undefined, `Bearer ${session.accessToken}`)).status, 401)
    assert.equal((await send(await proof(), `Bearer ${session.accessToken}`)).status, 401)
    assert.equal((await callApi(dev, thief.key, session.accessToken, path)).status, 401)
    const parameters = { grant_type: 'refresh_token', refresh_token: session.refreshToken }
    assert.equal((await requestTokens(dev, thief.key, parameters)).status, 400)
    // a proof whose header names the victim's key, signed with the thief's
    const claims = { jti: 'x1', htm: 'GET', htu: dev.origin + path, iat: Math.floor(Date.now() / 1_000) }
    const lying = signJws(
      thief.key,
      { typ: 'dpop+jwt', jwk: session.key.jwk },
      { ...claims, nonce: await freshNonce(dev), ath: hashOf(session.accessToken) },
    )
    assert.equal((await send(lying)).status, 401)
    assert.equal((await callApi(dev, session.key, session.accessToken, path)).status, 200)
  })
})
