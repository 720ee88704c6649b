import assert from 'node:assert/strict'
import { test } from 'node:test'
import * as oidc from 'openid-client'
import {
  Browser,
  type Cli,
  codeOn,
  createCli,
  EDGE_HOST,
  formActionOf,
  type Page,
  type Stage,
  startStage,
} from '../../test/login-stage.ts'
import { findOidcRecord, upsertOidcRecord } from '../store/oidc-records.ts'
import { requireFreshSignIn } from './device-codes.ts'

const GRANT = 'urn:ietf:params:oauth:grant-type:device_code'

/** A program asks for a code, as `postern login --no-browser` does. */
async function askForCode(stage: Stage, cli?: Cli) {
  const asking = cli ?? (await createCli(stage))
  const device = await oidc.initiateDeviceAuthorization(asking.config, {
    scope: 'openid email offline_access',
    dpop_jkt: await asking.DPoP.calculateThumbprint(),
  })
  const poll = (by: Cli = asking) =>
    oidc.genericGrantRequest(by.config, GRANT, { device_code: device.device_code }, { DPoP: by.DPoP })
  return { cli: asking, device, poll }
}

async function typeCode(stage: Stage, browser: Browser, userCode: string): Promise<Page> {
  const form = await browser.open(`${stage.origin}/device`)
  return browser.submit(form, { user_code: userCode })
}

async function refused(call: Promise<unknown>): Promise<string> {
  const error = await call.then(
    () => assert.fail('it was accepted'),
    (failure: unknown) => failure as oidc.ResponseBodyError,
  )
  return error.error
}

async function sessions(stage: Stage) {
  return stage.store.db.selectFrom('sessions').selectAll().execute()
}

test('a code that is typed, a fresh sign-in and one button: the program gets tokens bound to its key', async () => {
  await using stage = await startStage({ device: true })
  const { cli, device, poll } = await askForCode(stage)
  assert.equal(device.verification_uri, `${stage.origin}/device`)
  assert.match(device.user_code, /^[B-Z]{4}-[B-Z]{4}$/)
  assert.ok(device.expires_in <= 600 && device.interval! >= 1)
  assert.equal(await refused(poll()), 'authorization_pending')

  const browser = new Browser()
  const confirm = await typeCode(stage, browser, device.user_code.toLowerCase().replace('-', ' '))
  assert.match(confirm.url.pathname, /^\/login\/[^/]+\/confirm$/)
  assert.equal(await refused(poll()), 'authorization_pending', 'nothing is granted before the POST')
  const done = await browser.submit(confirm)
  assert.equal(done.url.href, `${stage.origin}/device/done`)
  assert.deepEqual(browser.cookies(EDGE_HOST), [], 'the edge leaves no cookie behind')

  const tokens = await poll()
  const whoami = await cli.whoami(tokens.access_token)
  assert.equal(whoami.body.identity?.email, 'dev@mycorp.com')
  const refreshed = await oidc.refreshTokenGrant(cli.config, tokens.refresh_token!, {}, { DPoP: cli.DPoP })
  assert.equal((await cli.whoami(refreshed.access_token)).status, 200)
  assert.equal((await sessions(stage))[0]?.kind, 'device')
  const [event] = stage.events
  assert.ok(event?.type === 'login.ok')
  assert.deepEqual(
    [event.kind, event.clientAddress, event.confirmedFrom],
    ['device', '127.0.0.1', '127.0.0.1'],
  )
})

test('the provider is asked for a fresh sign-in, also for another account', async () => {
  await using stage = await startStage({ device: true })
  const { device } = await askForCode(stage)
  const browser = new Browser()
  const confirm = await typeCode(stage, browser, device.user_code)
  const other = /href="([^"]+account=other)"/.exec(confirm.body)![1]!
  await browser.open(new URL(other, stage.origin))
  assert.equal(stage.upstream.requests.length >= 2, true)
  const asked = stage.upstream.requests.filter((request) => request.has('state'))
  for (const request of asked) {
    assert.equal(request.get('prompt'), 'login')
    assert.equal(request.get('max_age'), '0')
    assert.equal(request.get('login_hint'), null)
  }
})

test('a provider that answers with an old sign-in is refused; one that does not say is believed', () => {
  const account = { issuer: 'https://idp', subject: 's', email: 'dev@mycorp.com' as never, groups: [] }
  const now = 1_700_000_000_000
  assert.doesNotThrow(() => requireFreshSignIn({ ...account, authTime: now / 1_000 + 5 }, now))
  assert.doesNotThrow(() => requireFreshSignIn(account, now))
  assert.throws(() => requireFreshSignIn({ ...account, authTime: now / 1_000 - 3_600 }, now), {
    code: 'LOGIN_REFUSED',
  })
})

test('the confirmation shows code, account, program and where the program asked from, and one button', async () => {
  await using stage = await startStage({ device: true })
  const { device } = await askForCode(stage)
  // the program asked from elsewhere
  const browser = new Browser()
  const form = await browser.open(`${stage.origin}/device`)
  await moveDevice(stage, device.device_code, '203.0.113.9')
  const confirm = await browser.submit(form, { user_code: device.user_code })
  assert.ok(confirm.body.includes(device.user_code))
  assert.match(confirm.body, /dev@mycorp\.com/)
  assert.match(confirm.body, /postern, the command line/)
  assert.match(confirm.body, /<strong>203\.0\.113\.9<\/strong>; you are at 127\.0\.0\.1/)
  assert.match(confirm.body, /If somebody sent you the code, close this page/)
  assert.equal(confirm.body.match(/<button/g)?.length, 1)
  await browser.submit(confirm)
  const [event] = stage.events
  assert.ok(event?.type === 'login.ok')
  assert.deepEqual([event.clientAddress, event.confirmedFrom], ['203.0.113.9', '127.0.0.1'])
  assert.equal((await sessions(stage))[0]?.client_address, '203.0.113.9')
})

/** As if the program had asked from there. */
async function moveDevice(stage: Stage, deviceCode: string, address: string): Promise<void> {
  const key = { model: 'DeviceCode', id: deviceCode }
  const payload = await findOidcRecord(stage.store.db, key, Date.now())
  await upsertOidcRecord(stage.store.db, key, { ...payload, deviceInfo: { address } }, Date.now() + 600_000)
}

test('a code in a link is not accepted without typing, and no complete link is offered', async () => {
  await using stage = await startStage({ device: true })
  const { device } = await askForCode(stage)
  assert.equal(device.verification_uri_complete, undefined)
  const page = await new Browser().open(`${stage.origin}/device?user_code=${device.user_code}`)
  assert.ok(!page.body.includes(device.user_code))
  assert.match(page.body, /<input id="user_code" name="user_code" autocomplete="off"/)
  const posted = await new Browser().open(`${stage.origin}/device?user_code=${device.user_code}`, {
    method: 'POST',
    headers: { origin: stage.origin, 'content-type': 'application/x-www-form-urlencoded' },
    body: 'user_code=',
  })
  assert.equal(posted.status, 400)
})

test('a page of another site can neither type a code nor press the button', async () => {
  await using stage = await startStage({ device: true })
  const { device, poll } = await askForCode(stage)
  const browser = new Browser()
  const form = await browser.open(`${stage.origin}/device`)
  const strangers: Record<string, string>[] = [{ origin: 'https://evil.example' }, { origin: 'null' }, {}]
  for (const headers of strangers) {
    assert.equal(
      codeOn(await browser.submit(form, { user_code: device.user_code }, headers)),
      'REQUEST_INVALID',
    )
  }
  const confirm = await browser.submit(form, { user_code: device.user_code })
  for (const headers of strangers) {
    assert.equal(codeOn(await browser.submit(confirm, {}, headers)), 'REQUEST_INVALID')
  }
  assert.equal(codeOn(await new Browser().submit(confirm)), 'LOGIN_FAILED', 'nor another browser')
  assert.equal(await refused(poll()), 'authorization_pending')
  assert.deepEqual(await sessions(stage), [])
})

test('codes cannot be guessed: after some wrong ones nothing is looked at, the right one included', async () => {
  await using stage = await startStage({ device: true, codeLimits: { wrongPerAddress: 3 } })
  const { device } = await askForCode(stage)
  const wrong = ['BBBB-BBBB', 'x', '']
  for (const code of wrong) {
    const page = await typeCode(stage, new Browser(), code)
    assert.equal(page.status, 400)
    assert.match(page.body, /No program waits for this code/)
  }
  assert.equal(codeOn(await typeCode(stage, new Browser(), device.user_code)), 'RATE_LIMITED')
  stage.clock.aheadMs += 600_001
  assert.equal((await typeCode(stage, new Browser(), 'BBBB-BBBB')).status, 400, 'later there are tries again')
})

test('wrong codes that are sent all at once are counted too', async () => {
  await using stage = await startStage({ device: true, codeLimits: { wrongPerAddress: 3 } })
  const form = await new Browser().open(`${stage.origin}/device`)
  const pages = await Promise.all(
    Array.from({ length: 12 }, () => new Browser().submit(form, { user_code: 'BBBB-BBBB' })),
  )
  assert.equal(pages.filter((page) => page.status === 400).length, 3)
  assert.equal(pages.filter((page) => codeOn(page) === 'RATE_LIMITED').length, 9)
})

test('right codes use up no tries; one code begins a few sign-ins only', async () => {
  await using stage = await startStage({ device: true, codeLimits: { wrongPerAddress: 1, perCode: 2 } })
  const { device } = await askForCode(stage)
  for (let at = 0; at < 2; at += 1) {
    assert.equal((await typeCode(stage, new Browser(), device.user_code)).status, 200)
  }
  assert.equal(codeOn(await typeCode(stage, new Browser(), device.user_code)), 'RATE_LIMITED')
})

test('codes that wait are bounded per address', async () => {
  await using stage = await startStage({ device: true, pendingLimits: { perAddress: 2 } })
  await askForCode(stage)
  await askForCode(stage)
  await assert.rejects(askForCode(stage))
})

test('a code works once: typed again, confirmed twice at once, redeemed again', async () => {
  await using stage = await startStage({ device: true })
  const { cli, device, poll } = await askForCode(stage)
  const [mine, theirs] = [new Browser(), new Browser()]
  const [one, two] = [
    await typeCode(stage, mine, device.user_code),
    await typeCode(stage, theirs, device.user_code),
  ]
  const ends = await Promise.all([mine.submit(one), theirs.submit(two)])
  assert.deepEqual(ends.map((page) => page.status).sort(), [200, 400])
  assert.equal((await sessions(stage)).length, 1)
  assert.equal((await typeCode(stage, new Browser(), device.user_code)).status, 400)
  const { access_token } = await poll()
  assert.equal(await refused(poll()), 'invalid_grant')
  // the library takes reuse for theft and ends what came of it
  assert.notEqual((await cli.whoami(access_token)).status, 200)
})

test('another key cannot redeem the code, and a program without a key gets none', async () => {
  await using stage = await startStage({ device: true })
  const { device, poll } = await askForCode(stage)
  const browser = new Browser()
  await browser.submit(await typeCode(stage, browser, device.user_code))
  assert.equal(await refused(poll(await createCli(stage))), 'invalid_grant')
  const { config } = await createCli(stage)
  for (const parameters of [{}, { dpop_jkt: 'x' }]) {
    const asked = oidc.initiateDeviceAuthorization(config, { scope: 'openid', ...parameters })
    assert.equal(await refused(asked), 'invalid_request')
  }
})

test('a code is over after ten minutes, also for who typed it before', async () => {
  await using stage = await startStage({ device: true })
  const { device, poll } = await askForCode(stage)
  const browser = new Browser()
  const confirm = await typeCode(stage, browser, device.user_code)
  stage.clock.aheadMs += 601_000
  assert.equal(codeOn(await browser.submit(confirm)), 'LOGIN_FAILED')
  assert.equal((await typeCode(stage, new Browser(), device.user_code)).status, 400)
  assert.equal(await refused(poll()), 'invalid_grant')
  assert.deepEqual(await sessions(stage), [])
})

test('who is turned away can tell the program', async () => {
  await using stage = await startStage({ device: true })
  stage.upstream.claims = { email: 'dev@mycorp.com', email_verified: false }
  const { device, poll } = await askForCode(stage)
  const browser = new Browser()
  const page = await typeCode(stage, browser, device.user_code)
  assert.equal(codeOn(page), 'LOGIN_REFUSED')
  assert.match(formActionOf(page), /\/cancel$/)
  const end = await browser.submit(page)
  assert.match(end.body, /The command line has been told/)
  await assert.rejects(poll(), {
    error: 'access_denied',
    error_description: 'the identity provider has not verified the address dev@mycorp.com',
  })
})

test('a device sign-in that cannot be recorded does not happen', async () => {
  await using stage = await startStage({
    device: true,
    record: () => {
      throw new Error('disk full')
    },
  })
  const { device, poll } = await askForCode(stage)
  const browser = new Browser()
  const page = await browser.submit(await typeCode(stage, browser, device.user_code))
  assert.equal(codeOn(page), 'RECORD_FAILED')
  assert.equal(await refused(poll()), 'access_denied')
})

test("a device's login is no login in the browser: its pages lead to no code for a loopback port", async () => {
  await using stage = await startStage({ device: true })
  const { device } = await askForCode(stage)
  const browser = new Browser()
  const confirm = await typeCode(stage, browser, device.user_code)
  const uid = confirm.url.pathname.split('/')[2]!
  for (const path of [`/oauth/auth/${uid}`, `/device/${uid}`]) {
    assert.ok((await browser.open(`${stage.origin}${path}`)).status >= 400, path)
  }
})

test('the end of the session ends what the device has', async () => {
  await using stage = await startStage({ device: true })
  const { cli, device, poll } = await askForCode(stage)
  const browser = new Browser()
  await browser.submit(await typeCode(stage, browser, device.user_code))
  const { access_token } = await poll()
  await stage.login.endSession((await sessions(stage))[0]!.id, 'revoked')
  assert.equal((await cli.whoami(access_token)).status, 401)
})

test('switched off there is nothing: no endpoint, no page, no word in the discovery, no grant', async () => {
  await using stage = await startStage()
  const cli = await createCli(stage)
  const metadata = cli.config.serverMetadata()
  assert.equal(metadata.device_authorization_endpoint, undefined)
  assert.ok(!metadata.grant_types_supported?.includes(GRANT))
  for (const path of ['/oauth/device/authorize', '/device', '/device/done']) {
    for (const method of ['GET', 'POST']) {
      const headers = { 'content-type': 'application/x-www-form-urlencoded', origin: stage.origin }
      const answer = await stage.request({
        path,
        method,
        headers,
        ...(method === 'POST' ? { body: 'client_id=postern-cli&scope=openid' } : {}),
      })
      assert.equal(answer.status, 404, `${method} ${path}`)
    }
  }
  const grant = oidc.genericGrantRequest(cli.config, GRANT, { device_code: 'x' }, { DPoP: cli.DPoP })
  assert.equal(await refused(grant), 'unsupported_grant_type')
})

test('wrong codes count as failed sign-ins of the address, and a program that waits does not', async () => {
  await using stage = await startStage({ device: true, failedLoginsPerMinute: 2 })
  const { device, poll } = await askForCode(stage)
  for (let at = 0; at < 4; at += 1) assert.equal(await refused(poll()), 'authorization_pending')
  assert.match((await typeCode(stage, new Browser(), 'BBBB-BBBB')).body, /No program waits/)
  assert.equal((await typeCode(stage, new Browser(), device.user_code)).status, 200)
  assert.match((await typeCode(stage, new Browser(), 'BBBB-BBBB')).body, /No program waits/)
  const shutOut = await new Browser().open(`${stage.origin}/device`)
  assert.deepEqual([shutOut.status, codeOn(shutOut)], [429, 'RATE_LIMITED'])
  assert.match(String(shutOut.headers['retry-after']), /^[1-9]\d?$/)
})
