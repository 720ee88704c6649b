import assert from 'node:assert/strict'
import { test } from 'node:test'
import * as oidc from 'openid-client'
import {
  Browser,
  codeOn,
  createCli,
  EDGE_HOST,
  formActionOf,
  isLoopbackCallback,
  logIn,
  type Page,
  type Stage,
  startStage,
} from '../../test/login-stage.ts'

/** Up to the page with the button, in a browser of its own. */
async function comeToConfirm(stage: Stage, parameters?: Record<string, string>) {
  const cli = await createCli(stage)
  const browser = new Browser()
  const attempt = await cli.begin(parameters)
  const confirm = await browser.open(attempt.url)
  return { cli, browser, attempt, confirm }
}

/** Begins in a browser of its own and stops where the provider sends back: the callback's address, unused. */
async function comeToCallback(stage: Stage) {
  const cli = await createCli(stage)
  const browser = new Browser()
  const attempt = await cli.begin()
  const confirm = await browser.open(attempt.url)
  const callback = browser.visited.find((url) => url.pathname === '/login/callback')!
  return { cli, browser, attempt, confirm, callback }
}

/** Answers of the provider that the edge has not seen yet. */
async function stopBeforeCallback(stage: Stage) {
  const cli = await createCli(stage)
  const browser = new Browser()
  const attempt = await cli.begin()
  // away from the edge's callback: the code stays unused
  const toProvider = await browser.openUntil(attempt.url, (url) => url.origin === stage.upstream.issuer)
  const elsewhere = new Browser()
  const callback = await elsewhere.openUntil(toProvider, (url) => url.pathname === '/login/callback')
  return { cli, browser, attempt, callback }
}

function waits(page: Page): boolean {
  return /Continue as/.test(page.body)
}

test('a link with single sign-on at the provider never yields a code without the POST', async () => {
  await using stage = await startStage()
  const { browser } = await logIn(stage)
  // the same browser, signed in at the provider, opens a link that somebody sent
  const link = await (await createCli(stage)).begin()
  const page = await browser.open(link.url)
  assert.ok(waits(page))
  assert.equal(browser.visited.filter(isLoopbackCallback).length, 1, 'only the first login came to a code')
})

test('a login asks for confirmation again whatever cookies the browser brings', async () => {
  await using stage = await startStage()
  const { browser } = await logIn(stage)
  const kept = browser.cookies(EDGE_HOST)
  assert.deepEqual(kept, [], 'the edge leaves no cookie behind')
  browser.setCookie(EDGE_HOST, '__Host-postern-session', 'x'.repeat(43))
  assert.ok(waits(await browser.open((await (await createCli(stage)).begin()).url)))
})

test('prompt=none is refused', async () => {
  await using stage = await startStage()
  const { browser } = await logIn(stage)
  const page = await browser.open((await (await createCli(stage)).begin({ prompt: 'none' })).url)
  assert.ok(isLoopbackCallback(page.url))
  assert.equal(page.url.searchParams.get('error'), 'login_required')
  assert.equal(page.url.searchParams.get('code'), null)
})

test('the confirmation page shows account, client and address, and has one button', async () => {
  await using stage = await startStage()
  const { confirm } = await comeToConfirm(stage)
  assert.match(confirm.body, /dev@mycorp\.com/)
  assert.ok(confirm.body.includes(stage.upstream.issuer))
  assert.match(confirm.body, /postern, the command line/)
  assert.match(confirm.body, /waiting on http:\/\/127\.0\.0\.1:54321/)
  assert.match(confirm.body, /<dt>Asked from<\/dt><dd>127\.0\.0\.1<\/dd>/)
  assert.equal(confirm.body.match(/<button/g)?.length, 1)
  assert.match(confirm.body, /<form method="post"/)
})

test('pages allow no script, no frame, no cache, and tell nobody where they are', async () => {
  await using stage = await startStage()
  const { confirm, browser } = await comeToConfirm(stage)
  const error = await browser.open(`${stage.origin}/login/callback?state=nothing`)
  for (const page of [confirm, error]) {
    const policy = String(page.headers['content-security-policy'])
    assert.match(policy, /default-src 'none'/)
    assert.match(policy, /frame-ancestors 'none'/)
    assert.match(policy, /base-uri 'none'/)
    assert.doesNotMatch(policy, /unsafe/)
    assert.equal(page.headers['cache-control'], 'no-store')
    // not no-referrer: browsers would send Origin: null with the form
    assert.equal(page.headers['referrer-policy'], 'same-origin')
    assert.equal(page.headers['x-content-type-options'], 'nosniff')
    assert.equal(page.headers['x-frame-options'], 'DENY')
    assert.doesNotMatch(page.body, /<script/)
  }
})

test('the callback without the cookie is refused before the code is exchanged', async () => {
  await using stage = await startStage()
  const { browser, callback } = await stopBeforeCallback(stage)
  const stranger = await new Browser().open(callback)
  assert.equal(stranger.status, 400)
  assert.equal(codeOn(stranger), 'LOGIN_FAILED')
  assert.equal(stage.upstream.exchanges, 0)
  // and the attempt did not use it up for the one who began
  assert.ok(waits(await browser.open(callback)))
  assert.equal(stage.upstream.exchanges, 1)
})

test("the callback with another browser's cookie is refused before the code is exchanged", async () => {
  await using stage = await startStage()
  const mine = await stopBeforeCallback(stage)
  const theirs = await stopBeforeCallback(stage)
  const mixed = await theirs.browser.open(mine.callback)
  assert.equal(codeOn(mixed), 'LOGIN_FAILED')
  // also when it is brought under the name that belongs to this state
  const [name] = mine.browser.cookies(EDGE_HOST).filter((cookie) => cookie.name.includes('-login-'))
  const [foreign] = theirs.browser.cookies(EDGE_HOST).filter((cookie) => cookie.name.includes('-login-'))
  theirs.browser.setCookie(EDGE_HOST, name!.name, foreign!.value)
  assert.equal(codeOn(await theirs.browser.open(mine.callback)), 'LOGIN_FAILED')
  assert.equal(stage.upstream.exchanges, 0)
})

test('a callback works once', async () => {
  await using stage = await startStage()
  const { browser, callback } = await comeToCallback(stage)
  const again = await browser.open(callback)
  assert.equal(codeOn(again), 'LOGIN_FAILED')
  assert.equal(stage.upstream.exchanges, 1)
})

test('an answer that names another issuer is refused', async () => {
  await using stage = await startStage()
  const { browser, callback } = await stopBeforeCallback(stage)
  assert.ok(callback.searchParams.has('iss'))
  callback.searchParams.set('iss', 'https://evil.example')
  const page = await browser.open(callback)
  assert.equal(codeOn(page), 'LOGIN_FAILED')
  assert.equal(stage.upstream.exchanges, 0)
})

test('an interaction is of no use in another browser', async () => {
  await using stage = await startStage()
  const { browser, confirm } = await comeToConfirm(stage)
  const begin = browser.visited.find((url) => /^\/login\/[^/]+$/.test(url.pathname))!
  assert.equal(codeOn(await new Browser().open(begin)), 'LOGIN_FAILED')
  assert.equal(codeOn(await new Browser().open(confirm.url)), 'LOGIN_FAILED')
  const page = await new Browser().submit(confirm)
  assert.equal(codeOn(page), 'LOGIN_FAILED')
  assert.deepEqual(stage.events, [])
})

test('the POST from a page of another origin is refused', async () => {
  await using stage = await startStage()
  const { browser, confirm } = await comeToConfirm(stage)
  for (const origin of ['https://evil.example', 'null', `http://${EDGE_HOST}`, stage.upstream.issuer]) {
    const page = await browser.submit(confirm, {}, { origin })
    assert.equal(page.status, 400, origin)
    assert.equal(codeOn(page), 'REQUEST_INVALID')
  }
  assert.deepEqual(stage.events, [])
  assert.ok(isLoopbackCallback((await browser.submit(confirm)).url), 'nothing was used up')
})

test('the POST without Origin is refused', async () => {
  await using stage = await startStage()
  const { browser, confirm } = await comeToConfirm(stage)
  const page = await browser.submit(confirm, {}, {})
  assert.equal(page.status, 400)
  assert.equal(codeOn(page), 'REQUEST_INVALID')
  assert.deepEqual(stage.events, [])
})

test('a confirmation works once', async () => {
  await using stage = await startStage()
  const { browser, confirm } = await comeToConfirm(stage)
  const cookies = new Browser()
  cookies.takeCookiesOf(browser)
  assert.ok(isLoopbackCallback((await browser.submit(confirm)).url))
  // also with every cookie from before
  assert.equal(codeOn(await cookies.submit(confirm)), 'LOGIN_FAILED')
  assert.equal(stage.events.length, 1)
})

test('a confirmation needs the answer of the provider', async () => {
  await using stage = await startStage()
  const cli = await createCli(stage)
  const browser = new Browser()
  const { url } = await cli.begin()
  const toProvider = await browser.openUntil(url, (at) => at.origin === stage.upstream.issuer)
  assert.ok(toProvider)
  const begin = browser.visited.find((at) => /^\/login\/[^/]+$/.test(at.pathname))!
  const page = await browser.open(`${begin.href}/confirm`, {
    method: 'POST',
    headers: { origin: stage.origin },
    body: '',
  })
  assert.equal(codeOn(page), 'LOGIN_FAILED')
  assert.deepEqual(stage.events, [])
})

test('resuming without the POST begins again and grants nothing', async () => {
  await using stage = await startStage()
  const { browser, confirm } = await comeToConfirm(stage)
  const uid = confirm.url.pathname.split('/')[2]
  const page = await browser.open(`${stage.origin}/oauth/auth/${uid}`)
  assert.ok(waits(page))
  assert.notEqual(page.url.pathname, confirm.url.pathname)
  assert.ok(!browser.visited.some(isLoopbackCallback))
  assert.deepEqual(stage.events, [])
})

test('a login with prompt=login and max_age ends with tokens that say when', async () => {
  await using stage = await startStage()
  const { browser, confirm, attempt } = await comeToConfirm(stage, { prompt: 'login consent', max_age: '60' })
  assert.equal(stage.upstream.requests[0]?.get('max_age'), '60')
  const tokens = await attempt.finish((await browser.submit(confirm)).url)
  assert.equal(typeof tokens.claims()?.auth_time, 'number')
})

test('several logins in one browser do not disturb each other', async () => {
  await using stage = await startStage()
  const browser = new Browser()
  const [first, second] = [await createCli(stage), await createCli(stage)]
  const [one, two] = [await first.begin(), await second.begin()]
  const pages = [await browser.open(one.url), await browser.open(two.url)] as const
  const oneTokens = await one.finish((await browser.submit(pages[0])).url)
  const twoTokens = await two.finish((await browser.submit(pages[1])).url)
  assert.equal((await first.whoami(oneTokens.access_token)).status, 200)
  assert.equal((await second.whoami(twoTokens.access_token)).status, 200)
})

test('a login that is not finished in ten minutes is over', async () => {
  await using stage = await startStage()
  const { browser, confirm } = await comeToConfirm(stage)
  stage.clock.aheadMs += 11 * 60_000
  assert.equal(codeOn(await browser.submit(confirm)), 'LOGIN_FAILED')
  assert.deepEqual(stage.events, [])
})

test('every cookie is __Host-, Secure, HttpOnly, SameSite and Path=/', async () => {
  await using stage = await startStage()
  const { browser } = await logIn(stage)
  const own = browser.setCookies.filter(({ host }) => host === EDGE_HOST)
  assert.ok(own.length >= 3)
  for (const { line } of own) {
    assert.match(line, /^__Host-/)
    assert.match(line, /; path=\/(;|$)/i, line)
    assert.match(line, /; secure/i, line)
    assert.match(line, /; httponly/i, line)
    assert.match(line, /; samesite=lax/i, line)
    assert.doesNotMatch(line, /; domain=/i, line)
  }
})

test('an address that the provider has not verified is refused', async () => {
  await using stage = await startStage()
  for (const email_verified of [false, undefined, 'false', 1]) {
    stage.upstream.claims = { email: 'dev@mycorp.com', email_verified }
    const { confirm } = await comeToConfirm(stage)
    assert.equal(confirm.status, 403)
    assert.equal(codeOn(confirm), 'LOGIN_REFUSED')
    assert.ok(!waits(confirm))
  }
  assert.ok(stage.events.every((event) => event.type === 'login.refused' && event.email === 'dev@mycorp.com'))
  assert.equal(stage.events.length, 4)
})

test('unsafe_accept_unverified_email accepts a provider that leaves it out', async () => {
  await using stage = await startStage({ identity: { unsafeAcceptUnverifiedEmail: true } })
  stage.upstream.claims = { email: 'dev@mycorp.com' }
  assert.ok(waits((await comeToConfirm(stage)).confirm))
})

test('an address outside email_domains is refused, sub-domains too', async () => {
  await using stage = await startStage({ identity: { emailDomains: ['mycorp.com'] } })
  for (const email of ['dev@evil.com', 'dev@sub.mycorp.com', 'dev@mycorp.com.evil.com']) {
    stage.upstream.claims = { email, email_verified: true }
    assert.equal(codeOn((await comeToConfirm(stage)).confirm), 'LOGIN_REFUSED', email)
  }
  stage.upstream.claims = { email: 'Dev@MyCorp.com', email_verified: true }
  assert.ok(waits((await comeToConfirm(stage)).confirm))
})

test('an account without a required claim is refused', async () => {
  await using stage = await startStage({ identity: { requiredClaims: { hd: 'mycorp.com' } } })
  for (const hd of [undefined, 'evil.com']) {
    stage.upstream.claims = { email: 'dev@mycorp.com', email_verified: true, hd }
    assert.equal(codeOn((await comeToConfirm(stage)).confirm), 'LOGIN_REFUSED')
  }
  stage.upstream.claims = { email: 'dev@mycorp.com', email_verified: true, hd: 'mycorp.com' }
  assert.ok(waits((await comeToConfirm(stage)).confirm))
})

test('claims that the ID token lacks come from userinfo', async () => {
  await using stage = await startStage()
  stage.upstream.onlyUserInfo = true
  const { cli, tokens } = await logIn(stage)
  assert.deepEqual((await cli.whoami(tokens.access_token)).body.identity?.groups, ['sre', 'dev'])
})

test('a refused person can choose another account, or tell the command line', async () => {
  await using stage = await startStage({ identity: { emailDomains: ['mycorp.com'] } })
  stage.upstream.claims = { email: 'dev@private.example', email_verified: true }
  const { browser, confirm: refused, attempt } = await comeToConfirm(stage)
  const other = /href="([^"]+)"/.exec(refused.body)?.[1]
  stage.upstream.claims = { email: 'dev@mycorp.com', email_verified: true }
  // the provider of this test has no page to choose on
  const provider = await browser.openUntil(
    new URL(other!, stage.origin),
    (url) => url.origin !== stage.origin,
  )
  assert.equal(provider.searchParams.get('prompt'), 'login')
  const cancelled = await browser.submit(refused)
  assert.ok(isLoopbackCallback(cancelled.url))
  assert.equal(cancelled.url.searchParams.get('error'), 'access_denied')
  assert.match(cancelled.url.searchParams.get('error_description')!, /private\.example/)
  await assert.rejects(attempt.finish(cancelled.url), oidc.AuthorizationResponseError)
})

test('the provider is asked with code, PKCE, state and nonce, and freshly when the client asks for it', async () => {
  await using stage = await startStage()
  await comeToConfirm(stage)
  const [request] = stage.upstream.requests
  assert.equal(request?.get('response_type'), 'code')
  assert.equal(request?.get('code_challenge_method'), 'S256')
  assert.equal(request?.get('redirect_uri'), `${stage.origin}/login/callback`)
  assert.ok(request?.get('state') && request.get('nonce') && request.get('code_challenge'))
  assert.equal(request?.get('prompt'), null)
  const cli = await createCli(stage)
  const { url } = await cli.begin({ prompt: 'login consent', login_hint: 'dev@mycorp.com' })
  const asked = await new Browser().openUntil(url, (at) => at.origin === stage.upstream.issuer)
  assert.equal(asked.searchParams.get('prompt'), 'login')
  assert.equal(asked.searchParams.get('login_hint'), 'dev@mycorp.com')
})

test('an edge whose provider is down starts, says so, and asks again only after a while', async () => {
  await using stage = await startStage({ upstreamDown: true })
  const first = (await comeToConfirm(stage)).confirm
  assert.equal(codeOn(first), 'LOGIN_FAILED')
  assert.match(first.body, /identity provider does not answer/)
  await comeToConfirm(stage)
  const failures = () => stage.logLines.filter((line) => line.includes('login.provider_unreachable')).length
  assert.equal(failures(), 1)
  stage.clock.aheadMs += 2_000
  await comeToConfirm(stage)
  assert.equal(failures(), 2)
})

test('a login that cannot be recorded does not happen', async () => {
  await using stage = await startStage({
    record: () => {
      throw new Error('disk full')
    },
  })
  const { browser, confirm } = await comeToConfirm(stage)
  const page = await browser.submit(confirm)
  assert.equal(page.status, 503)
  assert.equal(codeOn(page), 'RECORD_FAILED')
  const sessions = await stage.store.db.selectFrom('sessions').selectAll().execute()
  assert.ok(sessions.every((session) => session.ended_at !== null))
})

test('pending logins are bounded per address, in total, and in attempts', async () => {
  await using stage = await startStage({ pendingLimits: { perAddress: 2, attempts: 2 } })
  const { browser, confirm } = await comeToConfirm(stage)
  await comeToConfirm(stage)
  const third = (await comeToConfirm(stage)).confirm
  assert.equal(third.status, 429)
  assert.equal(codeOn(third), 'RATE_LIMITED')
  const begin = browser.visited.find((url) => /^\/login\/[^/]+$/.test(url.pathname))!
  assert.ok(waits(await browser.open(begin)))
  assert.equal(codeOn(await browser.open(begin)), 'RATE_LIMITED')
  // a finished login makes room
  assert.ok(isLoopbackCallback((await browser.submit(confirm)).url))
  assert.ok(waits((await comeToConfirm(stage)).confirm))
})

test('the development page refuses what is not an address and asks again', async () => {
  await using stage = await startStage({ dev: true })
  const { browser, confirm: form } = await comeToConfirm(stage)
  const again = await browser.submit(form, { email: '<b>x</b>' })
  assert.equal(again.status, 400)
  assert.doesNotMatch(again.body, /<b>x/)
  assert.ok(waits(await browser.submit(again, { email: 'dev@mycorp.com' })))
})

test('the development page takes no address from another origin or another browser', async () => {
  await using stage = await startStage({ dev: true })
  const { browser, confirm: form } = await comeToConfirm(stage)
  const email = 'dev@mycorp.com'
  const cross = await browser.submit(form, { email }, { origin: 'https://evil.example' })
  assert.equal(codeOn(cross), 'REQUEST_INVALID')
  assert.equal(codeOn(await new Browser().submit(form, { email })), 'LOGIN_FAILED')
  assert.match(formActionOf(form), /^\/login\/dev\?state=/)
})

test('with a real provider there is no development page', async () => {
  await using stage = await startStage()
  const page = await new Browser().open(`${stage.origin}/login/dev?state=x`, {
    method: 'POST',
    headers: { origin: stage.origin, 'content-type': 'application/x-www-form-urlencoded' },
    body: 'email=dev%40mycorp.com',
  })
  assert.equal(page.status, 404)
})
