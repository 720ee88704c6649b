import assert from 'node:assert/strict'
import { createHash, randomUUID } from 'node:crypto'
import { test } from 'node:test'
import { exportJWK, generateKeyPair, type JWTPayload, SignJWT } from 'jose'
import { sql } from 'kysely'
import * as oidc from 'openid-client'
import {
  type Answer,
  Browser,
  createCli,
  logIn,
  type Stage,
  startStage,
  type WhoAmI,
} from '../../test/login-stage.ts'

type Claims = Record<string, unknown>
type Keys = Awaited<ReturnType<typeof generateKeyPair>>

const PATH = '/v1/session'

/** A login, and the parts of a proof made by hand. */
async function signIn(stage: Stage) {
  const { cli, tokens } = await logIn(stage)
  const token = tokens.access_token
  const nonce = await freshNonce(stage)
  const good = (): Claims => ({
    jti: randomUUID(),
    htm: 'GET',
    htu: `${stage.origin}${PATH}`,
    iat: Math.floor((Date.now() + stage.clock.aheadMs) / 1_000),
    ath: createHash('sha256').update(token).digest('base64url'),
    nonce,
  })
  return { cli, tokens, token, nonce, good, keys: cli.keyPair as Keys }
}

async function freshNonce(stage: Stage): Promise<string> {
  return String((await stage.request({ path: PATH })).headers['dpop-nonce'])
}

async function proofOf(
  keys: Keys,
  payload: JWTPayload,
  header: Record<string, unknown> = {},
): Promise<string> {
  const jwk = await exportJWK(keys.publicKey)
  return await new SignJWT(payload as JWTPayload)
    .setProtectedHeader({ alg: 'ES256', typ: 'dpop+jwt', jwk, ...header })
    .sign(keys.privateKey)
}

function ask(stage: Stage, token: string, proof: string, path = PATH): Promise<Answer> {
  return stage.request({ path, headers: { authorization: `DPoP ${token}`, dpop: proof } })
}

function errorOf(answer: Answer): NonNullable<WhoAmI['error']> {
  return JSON.parse(answer.body).error
}

function assertRefused(answer: Answer, code: string, challenge: string): void {
  assert.equal(answer.status, 401, answer.body)
  assert.equal(errorOf(answer).code, code)
  assert.match(String(answer.headers['www-authenticate']), new RegExp(`^DPoP error="${challenge}"`))
  assert.ok(answer.headers['dpop-nonce'])
}

test('a proof made by hand is accepted, with a query and with every spelling of the same address', async () => {
  await using stage = await startStage()
  const { token, good, keys } = await signIn(stage)
  assert.equal((await ask(stage, token, await proofOf(keys, good()))).status, 200)
  assert.equal((await ask(stage, token, await proofOf(keys, good()), `${PATH}?a=b`)).status, 200)
  const htu = `${stage.origin.replace('https', 'HTTPS').replace('edge', 'EDGE')}${PATH}?x#y`
  assert.equal((await ask(stage, token, await proofOf(keys, { ...good(), htu }))).status, 200)
})

test('plain Bearer is refused', async () => {
  await using stage = await startStage()
  const { token, good, keys } = await signIn(stage)
  const bearer = { authorization: `Bearer ${token}` }
  assertRefused(await stage.request({ path: PATH, headers: bearer }), 'SIGN_IN_REQUIRED', 'invalid_token')
  const dpop = await proofOf(keys, good())
  assertRefused(
    await stage.request({ path: PATH, headers: { ...bearer, dpop } }),
    'SIGN_IN_REQUIRED',
    'invalid_token',
  )
  const alone = { authorization: `DPoP ${token}` }
  assertRefused(await stage.request({ path: PATH, headers: alone }), 'DPOP_INVALID', 'invalid_dpop_proof')
  assertRefused(await stage.request({ path: PATH }), 'SIGN_IN_REQUIRED', 'invalid_token')
})

test('a token with another key is refused at the API', async () => {
  await using stage = await startStage()
  const { token, good } = await signIn(stage)
  const proof = await proofOf(await generateKeyPair('ES256'), good())
  assertRefused(await ask(stage, token, proof), 'DPOP_INVALID', 'invalid_dpop_proof')
})

test('a refresh token with another key is refused, and with its own still works', async () => {
  await using stage = await startStage()
  const { cli, tokens } = await signIn(stage)
  const thief = oidc.getDPoPHandle(cli.config, await oidc.randomDPoPKeyPair('ES256'))
  const stolen = oidc.refreshTokenGrant(cli.config, tokens.refresh_token!, undefined, { DPoP: thief })
  await assert.rejects(stolen, { error: 'invalid_grant' })
  const unbound = oidc.refreshTokenGrant(cli.config, tokens.refresh_token!)
  await assert.rejects(unbound, { error: 'invalid_grant' })
  const own = await oidc.refreshTokenGrant(cli.config, tokens.refresh_token!, undefined, { DPoP: cli.DPoP })
  assert.equal((await cli.whoami(own.access_token)).status, 200)
})

test('a code is bound to the key that the login was begun for', async () => {
  await using stage = await startStage()
  const cli = await createCli(stage)
  const browser = new Browser()
  const attempt = await cli.begin({ dpop_jkt: 'A'.repeat(43) })
  const callback = await browser.submit(await browser.open(attempt.url))
  await assert.rejects(attempt.finish(callback.url), { error: 'invalid_grant' })
})

test('a proof is accepted once', async () => {
  await using stage = await startStage()
  const { token, good, keys } = await signIn(stage)
  const proof = await proofOf(keys, good())
  const answers = await Promise.all([
    ask(stage, token, proof),
    ask(stage, token, proof),
    ask(stage, token, proof),
  ])
  assert.deepEqual(answers.map((answer) => answer.status).sort(), [200, 401, 401])
  assertRefused(await ask(stage, token, proof), 'DPOP_INVALID', 'invalid_dpop_proof')
})

test('a proof is accepted once at the token endpoint too', async () => {
  await using stage = await startStage()
  const { tokens, good, keys } = await signIn(stage)
  const { ath: _, ...claims }: Claims = { ...good(), htm: 'POST', htu: `${stage.origin}/oauth/token` }
  const dpop = await proofOf(keys, claims)
  const body = `grant_type=refresh_token&client_id=postern-cli&refresh_token=${tokens.refresh_token}`
  const headers = { dpop, 'content-type': 'application/x-www-form-urlencoded' }
  const post = () => stage.request({ path: '/oauth/token', method: 'POST', headers, body })
  const statuses = (await Promise.all([post(), post(), post()])).map((answer) => answer.status)
  assert.deepEqual(statuses.sort(), [200, 400, 400])
})

test('a proof for another method, address, token or without a claim is refused', async () => {
  await using stage = await startStage()
  const { token, good, keys } = await signIn(stage)
  const port = new URL(stage.origin).port
  const wrong: [string, Claims][] = [
    ['htm', { htm: 'POST' }],
    ['htm missing', { htm: undefined }],
    ['htm case', { htm: 'get' }],
    ['htu path', { htu: `${stage.origin}/v1/services` }],
    ['htu path case', { htu: `${stage.origin}/v1/Session` }],
    ['htu slash', { htu: `${stage.origin}${PATH}/` }],
    ['htu host', { htu: `https://other.localhost:${port}${PATH}` }],
    ['htu port', { htu: `https://edge.localhost${PATH}` }],
    ['htu scheme', { htu: `http://edge.localhost:${port}${PATH}` }],
    ['htu missing', { htu: undefined }],
    ['htu not an address', { htu: PATH }],
    ['ath', { ath: createHash('sha256').update('other').digest('base64url') }],
    ['ath missing', { ath: undefined }],
    ['jti missing', { jti: undefined }],
    ['jti long', { jti: 'x'.repeat(257) }],
    ['iat missing', { iat: undefined }],
  ]
  for (const [name, claims] of wrong) {
    const answer = await ask(stage, token, await proofOf(keys, { ...good(), ...claims }))
    assert.equal(answer.status, 401, name)
    assertRefused(answer, 'DPOP_INVALID', 'invalid_dpop_proof')
  }
})

test('a proof of another kind or algorithm is refused', async () => {
  await using stage = await startStage()
  const { token, good, keys } = await signIn(stage)
  const ed25519 = await generateKeyPair('Ed25519')
  const other = await generateKeyPair('ES256')
  const proof = await proofOf(keys, good())
  const [header, payload, signature] = proof.split('.')
  const wrong: [string, string][] = [
    ['typ', await proofOf(keys, good(), { typ: 'JWT' })],
    ['alg', await proofOf(ed25519, good(), { alg: 'EdDSA' })],
    ['jwk of another key', await proofOf(keys, good(), { jwk: await exportJWK(other.publicKey) })],
    ['none', `${Buffer.from('{"alg":"none","typ":"dpop+jwt"}').toString('base64url')}.${payload}.`],
    ['signature', `${header}.${payload}.${signature!.slice(0, -4)}AAAA`],
    ['two proofs', `${proof}, ${await proofOf(keys, good())}`],
    ['too long', `${header}.${'A'.repeat(5_000)}.${signature}`],
  ]
  for (const [name, dpop] of wrong) {
    const answer = await ask(stage, token, dpop)
    assert.equal(answer.status, 401, name)
    assertRefused(answer, 'DPOP_INVALID', 'invalid_dpop_proof')
  }
})

test('a proof without a fresh server nonce is refused, and told the nonce', async () => {
  await using stage = await startStage()
  const { token, good, keys } = await signIn(stage)
  for (const nonce of [undefined, 'made-up', '']) {
    const answer = await ask(stage, token, await proofOf(keys, { ...good(), nonce }))
    assertRefused(answer, 'DPOP_INVALID', 'use_dpop_nonce')
    const told = String(answer.headers['dpop-nonce'])
    assert.equal((await ask(stage, token, await proofOf(keys, { ...good(), nonce: told }))).status, 200)
  }
  stage.clock.aheadMs += 6 * 60_000
  assertRefused(await ask(stage, token, await proofOf(keys, good())), 'DPOP_INVALID', 'use_dpop_nonce')
})

test('the token endpoint demands a server nonce as well', async () => {
  await using stage = await startStage()
  const { tokens, good, keys } = await signIn(stage)
  const {
    ath: _,
    nonce: __,
    ...claims
  }: Claims = { ...good(), htm: 'POST', htu: `${stage.origin}/oauth/token` }
  const answer = await stage.request({
    path: '/oauth/token',
    method: 'POST',
    headers: { dpop: await proofOf(keys, claims), 'content-type': 'application/x-www-form-urlencoded' },
    body: `grant_type=refresh_token&client_id=postern-cli&refresh_token=${tokens.refresh_token}`,
  })
  assert.equal(JSON.parse(answer.body).error, 'use_dpop_nonce')
})

test('a nonce of the API serves the token endpoint', async () => {
  await using stage = await startStage()
  const { tokens, good, keys } = await signIn(stage)
  const { ath: _, ...claims }: Claims = { ...good(), htm: 'POST', htu: `${stage.origin}/oauth/token` }
  const answer = await stage.request({
    path: '/oauth/token',
    method: 'POST',
    headers: { dpop: await proofOf(keys, claims), 'content-type': 'application/x-www-form-urlencoded' },
    body: `grant_type=refresh_token&client_id=postern-cli&refresh_token=${tokens.refresh_token}`,
  })
  assert.equal(answer.status, 200, answer.body)
})

test('a clock that is off is told by how much', async () => {
  await using stage = await startStage()
  const { token, good, keys } = await signIn(stage)
  const now = Math.floor(Date.now() / 1_000)
  assert.equal((await ask(stage, token, await proofOf(keys, { ...good(), iat: now - 50 }))).status, 200)
  const behind = errorOf(await ask(stage, token, await proofOf(keys, { ...good(), iat: now - 600 })))
  assert.equal(behind.code, 'CLOCK_OFF')
  assert.match(behind.message, /clock is 10 min( \d s)? behind/)
  const ahead = errorOf(await ask(stage, token, await proofOf(keys, { ...good(), iat: now + 7_300 })))
  assert.match(ahead.message, /clock is 2 h 1 min ahead of/)
})

test('a session that is over by age gives nothing more', async () => {
  await using stage = await startStage({ sessionMs: 3_600_000 })
  const { cli, tokens, token, good, keys } = await signIn(stage)
  const { session } = (await cli.whoami(tokens.access_token)).body
  assert.equal(await stage.login.sessionIsLive(session!.id), true)
  assert.ok(tokens.expires_in! <= 1_800)
  stage.clock.aheadMs += 3_600_000
  const proof = await proofOf(keys, { ...good(), nonce: await freshNonce(stage) })
  assertRefused(await ask(stage, token, proof), 'SIGN_IN_REQUIRED', 'invalid_token')
  assert.equal(await stage.login.sessionIsLive(session!.id), false)
  const refresh = oidc.refreshTokenGrant(cli.config, tokens.refresh_token!, undefined, { DPoP: cli.DPoP })
  await assert.rejects(refresh, { error: 'invalid_grant' })
})

test('refreshing does not prolong the session, and no token outlives it', async () => {
  await using stage = await startStage({ sessionMs: 20 * 60_000 })
  const { cli, tokens } = await signIn(stage)
  const before = (await cli.whoami(tokens.access_token)).body.session!
  assert.ok(tokens.expires_in! <= 20 * 60)
  const refreshed = await oidc.refreshTokenGrant(cli.config, tokens.refresh_token!, undefined, {
    DPoP: cli.DPoP,
  })
  assert.ok(refreshed.expires_in! <= 20 * 60)
  assert.equal((await cli.whoami(refreshed.access_token)).body.session!.expiresAt, before.expiresAt)
  const rows = await stage.store.db.selectFrom('oidc_records').select(['model', 'expires_at']).execute()
  assert.ok(rows.some((row) => row.model === 'RefreshToken'))
  // whole seconds, so a token may be rounded up by less than one
  for (const row of rows) assert.ok(row.expires_at! <= before.expiresAt + 1_000, row.model)
})

test('an expired access token is refused', async () => {
  await using stage = await startStage()
  const { token, good, keys } = await signIn(stage)
  stage.clock.aheadMs += 31 * 60_000
  const proof = await proofOf(keys, { ...good(), nonce: await freshNonce(stage) })
  assertRefused(await ask(stage, token, proof), 'SIGN_IN_REQUIRED', 'invalid_token')
})

test('an ended session works nowhere at once, and its listeners hear it', async () => {
  await using stage = await startStage()
  const { cli, tokens } = await signIn(stage)
  const { session } = (await cli.whoami(tokens.access_token)).body
  const heard: string[] = []
  const stop = stage.login.onSessionEnded(() => {
    throw new Error('a listener that fails')
  })
  stage.login.onSessionEnded((ended, reason) => heard.push(`${ended.id} ${reason}`))
  await stage.login.endSession(session!.id, 'revoked')
  await stage.login.endSession(session!.id, 'again')
  stop()
  assert.deepEqual(heard, [`${session!.id} revoked`, `${session!.id} again`])
  assert.equal(stage.events.filter((event) => event.type === 'session.ended').length, 1)
  assert.equal(await stage.login.sessionIsLive(session!.id), false)
  const who = await cli.whoami(tokens.access_token)
  assert.equal(who.status, 401)
  assert.equal(who.body.error?.code, 'SIGN_IN_REQUIRED')
  const refresh = oidc.refreshTokenGrant(cli.config, tokens.refresh_token!, undefined, { DPoP: cli.DPoP })
  await assert.rejects(refresh, { error: 'invalid_grant' })
  const left = await stage.store.db.selectFrom('oidc_records').select('model').execute()
  assert.deepEqual(left, [])
  assert.deepEqual(stage.events.at(-1), {
    type: 'session.ended',
    sessionId: session!.id,
    identityId: (stage.events[0] as { identityId: string }).identityId,
    email: 'dev@mycorp.com',
    reason: 'revoked',
  })
})

test('an end that fails half way is heard all the same, and so is its repetition', async () => {
  await using stage = await startStage()
  const { cli, tokens } = await signIn(stage)
  const { session } = (await cli.whoami(tokens.access_token)).body
  const heard: string[] = []
  stage.login.onSessionEnded((_, reason) => heard.push(reason))
  const { db } = stage.store
  await sql`alter table oidc_records rename to away`.execute(db)
  await assert.rejects(stage.login.endSession(session!.id, 'after the mark'))
  assert.equal(await stage.login.sessionIsLive(session!.id), false)
  await sql`alter table away rename to oidc_records`.execute(db)
  await stage.login.endSession(session!.id, 'again')
  await db.updateTable('sessions').set({ ended_at: null }).execute()
  await sql`create trigger broken before update on sessions begin select raise(abort, 'disk full'); end`.execute(
    db,
  )
  await assert.rejects(stage.login.endSession(session!.id, 'at the mark'), /disk full/)
  assert.deepEqual(heard, ['after the mark', 'again', 'at the mark'])
})

test('a token whose row outlived the end of its session is refused', async () => {
  await using stage = await startStage()
  const { cli, tokens } = await signIn(stage)
  const { session } = (await cli.whoami(tokens.access_token)).body
  await stage.store.db.updateTable('sessions').set({ ended_at: 1, end_reason: 'x' }).execute()
  const who = await cli.whoami(tokens.access_token)
  assert.equal(who.body.error?.code, 'SESSION_ENDED')
  assert.equal(await stage.login.sessionIsLive(session!.id), false)
  const refresh = oidc.refreshTokenGrant(cli.config, tokens.refresh_token!, undefined, { DPoP: cli.DPoP })
  await assert.rejects(refresh, { error: 'invalid_grant' })
})

test('revoking the refresh token ends the session', async () => {
  await using stage = await startStage()
  const { cli, tokens } = await signIn(stage)
  await oidc.tokenRevocation(cli.config, tokens.refresh_token!)
  assert.equal((await cli.whoami(tokens.access_token)).status, 401)
  assert.equal(stage.events.at(-1)?.type, 'session.ended')
})

test('a code that comes twice ends the session it opened', async () => {
  await using stage = await startStage()
  const cli = await createCli(stage)
  const browser = new Browser()
  const attempt = await cli.begin()
  const callback = await browser.submit(await browser.open(attempt.url))
  const tokens = await attempt.finish(callback.url)
  await assert.rejects(attempt.finish(callback.url), { error: 'invalid_grant' })
  assert.equal((await cli.whoami(tokens.access_token)).status, 401)
})

test('of two that race with one code, one gets tokens', async () => {
  await using stage = await startStage()
  const cli = await createCli(stage)
  const browser = new Browser()
  const attempt = await cli.begin()
  const callback = await browser.submit(await browser.open(attempt.url))
  const results = await Promise.allSettled([attempt.finish(callback.url), attempt.finish(callback.url)])
  assert.ok(results.filter((result) => result.status === 'fulfilled').length <= 1)
})

test('introspection tells about tokens of this client only while the session lives', async () => {
  await using stage = await startStage()
  const { cli, tokens } = await signIn(stage)
  const live = await oidc.tokenIntrospection(cli.config, tokens.access_token)
  assert.equal(live.active, true)
  assert.ok(live.cnf?.jkt)
  const { session } = (await cli.whoami(tokens.access_token)).body
  await stage.login.endSession(session!.id, 'logout')
  assert.deepEqual(await oidc.tokenIntrospection(cli.config, tokens.access_token), { active: false })
})

test('no table and no log line holds a token, a code, a cookie or a state', async () => {
  await using stage = await startStage()
  const { cli, tokens, browser, callback } = await logIn(stage)
  // one that waits for its confirmation, so that every table has a row
  const waiting = await browser.open((await cli.begin()).url)
  await cli.whoami(tokens.access_token)
  const uid = waiting.url.pathname.split('/')[2]!
  const upstreamCallback = browser.visited.filter((url) => url.pathname === '/login/callback')
  const secrets = [
    tokens.access_token,
    tokens.refresh_token!,
    tokens.id_token!,
    callback.searchParams.get('code')!,
    uid,
    ...browser.cookies('edge.localhost').map((cookie) => cookie.value),
    ...browser.setCookies.map(({ line }) => /=([^;]*)/.exec(line)![1]!),
    ...upstreamCallback.flatMap((url) => [url.searchParams.get('code')!, url.searchParams.get('state')!]),
  ].filter((secret) => secret !== '')
  assert.ok(secrets.length > 10)
  const { db } = stage.store
  const tables = (await db.introspection.getTables()).map((table) => table.name)
  assert.ok(tables.includes('oidc_records') && tables.includes('upstream_logins'))
  let rows = 0
  for (const table of tables) {
    for (const row of await db
      .selectFrom(table as 'sessions')
      .selectAll()
      .execute()) {
      rows += 1
      const text = JSON.stringify(row)
      for (const secret of secrets) assert.ok(!text.includes(secret), `${table} holds ${secret}`)
    }
  }
  assert.ok(rows > 5)
  for (const line of stage.logLines) {
    for (const secret of secrets) assert.ok(!line.includes(secret), line)
  }
})

test('refused grants count as failed sign-ins of the address; learning a nonce does not', async () => {
  await using stage = await startStage({ failedLoginsPerMinute: 2 })
  const { cli, tokens } = await logIn(stage)
  for (let good = 0; good < 3; good += 1)
    await oidc.refreshTokenGrant(
      (await createCli(stage)).config,
      tokens.refresh_token!,
      {},
      { DPoP: cli.DPoP },
    )
  for (let bad = 0; bad < 2; bad += 1)
    await assert.rejects(oidc.refreshTokenGrant(cli.config, 'no-token-of-ours', {}, { DPoP: cli.DPoP }), {
      error: 'invalid_grant',
    })
  const shutOut = await stage.request({ path: '/oauth/token', method: 'POST', body: 'grant_type=x' })
  assert.equal(shutOut.status, 429)
  assert.match(shutOut.body, /too many sign-ins and tokens from this address were refused/)
})
