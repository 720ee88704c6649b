import assert from 'node:assert/strict'
import { test } from 'node:test'
import * as oidc from 'openid-client'
import { Browser, createCli, logIn, startStage } from '../../test/login-stage.ts'

test('a person signs in at the company, confirms, and is known to the API', async () => {
  await using stage = await startStage()
  const { cli, tokens, confirm } = await logIn(stage)

  assert.match(confirm.body, /Continue as dev@mycorp\.com/)
  assert.match(confirm.body, /postern, the command line/)
  assert.match(confirm.body, /127\.0\.0\.1/)
  assert.equal(tokens.token_type, 'dpop')
  const who = await cli.whoami(tokens.access_token)
  assert.equal(who.status, 200, JSON.stringify(who.body))
  assert.equal(who.body.identity?.issuer, stage.upstream.issuer)
  assert.equal(who.body.identity?.subject, 'dev')
  assert.equal(who.body.identity?.email, 'dev@mycorp.com')
  assert.deepEqual(who.body.identity?.groups, ['sre', 'dev'])
  assert.equal(tokens.claims()?.email, 'dev@mycorp.com')
  assert.equal(tokens.claims()?.sub, who.body.identity?.id)
  assert.deepEqual(
    stage.events.map((event) => event.type),
    ['login.ok'],
  )
})

test('the session keeps how the person signed in at the company', async () => {
  await using stage = await startStage()
  const authTime = Math.floor(Date.now() / 1_000) - 3_600
  stage.upstream.signIn = { amr: ['pwd', 'otp'], acr: 'urn:high', ts: authTime }
  const { cli, tokens } = await logIn(stage)
  const { session } = (await cli.whoami(tokens.access_token)).body
  assert.deepEqual(
    [session?.kind, session?.amr, session?.acr, session?.authTime],
    ['browser', ['pwd', 'otp'], 'urn:high', authTime * 1_000],
  )
})

test('a sign-in that the provider dates ahead is no younger than the session', async () => {
  await using stage = await startStage()
  stage.upstream.signIn = { ts: Math.floor(Date.now() / 1_000) + 3_600 }
  const { cli, tokens } = await logIn(stage)
  const { session } = (await cli.whoami(tokens.access_token)).body
  assert.ok(session?.authTime !== undefined && session.authTime <= Date.now())
  assert.deepEqual(session.amr, [])
  assert.equal(session.acr, undefined)
})

test('refresh tokens are bound to the key and not rotated', async () => {
  await using stage = await startStage()
  const { cli, tokens } = await logIn(stage)
  const refreshed = await oidc.refreshTokenGrant(cli.config, tokens.refresh_token!, undefined, {
    DPoP: cli.DPoP,
  })
  assert.equal(refreshed.refresh_token, tokens.refresh_token)
  assert.notEqual(refreshed.access_token, tokens.access_token)
  assert.equal((await cli.whoami(refreshed.access_token)).status, 200)
  assert.equal((await cli.whoami(tokens.access_token)).status, 200)
})

test('the development sign-in takes groups and methods from programs', async () => {
  await using stage = await startStage({ dev: true })
  const cli = await createCli(stage)
  const browser = new Browser()
  const attempt = await cli.begin()
  const form = await browser.open(attempt.url)
  const bad = await browser.submit(form, { email: 'dev@mycorp.com', groups: 'x'.repeat(129) }, {})
  assert.equal(bad.status, 400)
  assert.match(bad.body, /groups of the account cannot be used/)
  const fields = { email: 'dev@mycorp.com', groups: 'sre, on call', amr: 'pwd,otp' }
  const confirm = await browser.submit(bad, fields, {})
  const tokens = await attempt.finish((await browser.submit(confirm)).url)
  const { identity, session } = (await cli.whoami(tokens.access_token)).body
  assert.deepEqual(
    [identity?.groups, session?.amr],
    [
      ['sre', 'on call'],
      ['pwd', 'otp'],
    ],
  )
})

test('the development sign-in asks for one address and then confirms like any other', async () => {
  await using stage = await startStage({ dev: true })
  const cli = await createCli(stage)
  const browser = new Browser()
  const attempt = await cli.begin()
  const form = await browser.open(attempt.url)
  assert.equal(form.body.match(/<input/g)?.length, 1)
  const confirm = await browser.submit(form, { email: 'Operator@MyCorp.com' }, {})
  assert.match(confirm.body, /Continue as operator@mycorp\.com/)
  const tokens = await attempt.finish((await browser.submit(confirm)).url)
  const { identity } = (await cli.whoami(tokens.access_token)).body
  assert.equal(identity?.issuer, `${stage.origin}/dev`)
  assert.equal(identity?.subject, 'operator@mycorp.com')
})
