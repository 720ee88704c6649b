import assert from 'node:assert/strict'
import { readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import type { KoaContextWithOIDC } from 'oidc-provider'
import {
  Browser,
  codeOn,
  createCli,
  EDGE_HOST,
  isLoopbackCallback,
  logIn,
  type Stage,
  startStage,
} from '../../test/login-stage.ts'
import { issuerConfiguration } from './issuer.ts'
import { loadLoginKeys } from './keys.ts'

const FORM = { 'content-type': 'application/x-www-form-urlencoded' }

async function openAuthorization(stage: Stage, change: (parameters: URLSearchParams) => void) {
  const { url } = await (await createCli(stage)).begin()
  change(url.searchParams)
  return await new Browser().open(url)
}

test('issuer and endpoints are the edge itself, and what is not needed is not there', async () => {
  await using stage = await startStage()
  const answer = await stage.request({ path: '/.well-known/openid-configuration' })
  const metadata = JSON.parse(answer.body)
  assert.equal(metadata.issuer, stage.origin)
  assert.equal(metadata.authorization_endpoint, `${stage.origin}/oauth/auth`)
  assert.equal(metadata.token_endpoint, `${stage.origin}/oauth/token`)
  assert.equal(metadata.jwks_uri, `${stage.origin}/oauth/jwks`)
  assert.equal(metadata.revocation_endpoint, `${stage.origin}/oauth/revoke`)
  assert.equal(metadata.introspection_endpoint, `${stage.origin}/oauth/introspect`)
  assert.deepEqual(metadata.code_challenge_methods_supported, ['S256'])
  assert.deepEqual(metadata.dpop_signing_alg_values_supported, ['ES256'])
  assert.deepEqual(metadata.id_token_signing_alg_values_supported, ['ES256'])
  assert.deepEqual(metadata.response_types_supported, ['code'])
  assert.deepEqual(metadata.token_endpoint_auth_methods_supported, ['none'])
  assert.deepEqual(metadata.grant_types_supported.sort(), ['authorization_code', 'refresh_token'])
  const names = 'userinfo registration end_session pushed_authorization_request device_authorization'
  for (const name of names.split(' ')) assert.equal(metadata[`${name}_endpoint`], undefined)
})

test('devInteractions is off, and paths of the library that nobody needs are not there', async () => {
  await using stage = await startStage()
  const cli = await createCli(stage)
  const browser = new Browser()
  await browser.open((await cli.begin()).url)
  const uid = browser.visited.find((url) => /^\/login\/[^/]+$/.test(url.pathname))!.pathname.split('/')[2]
  const paths = [
    `/interaction/${uid}`,
    `/interaction/${uid}/abort`,
    '/session/end',
    '/oauth/me',
    '/oauth/device',
    '/me',
  ]
  for (const path of paths) assert.equal((await stage.request({ path })).status, 404, path)
  for (const path of ['/session/end/confirm', '/reg', '/request', '/oauth/userinfo', '/oauth/TOKEN']) {
    assert.equal(
      (await stage.request({ path, method: 'POST', headers: FORM, body: 'a=b' })).status,
      404,
      path,
    )
  }
  for (const method of ['HEAD', 'OPTIONS', 'PUT', 'POST']) {
    assert.equal(
      (await stage.request({ path: '/oauth/auth?client_id=postern-cli', method })).status,
      404,
      method,
    )
  }
})

test('every lifetime is set explicitly and ends with the session', async () => {
  await using stage = await startStage()
  const keys = await loadLoginKeys(stage.dataDir)
  const sessionSeconds = 3_600
  const configuration = issuerConfiguration({
    device: true,
    origin: stage.origin,
    keys,
    sessionMs: sessionSeconds * 1_000,
    db: stage.store.db,
    adapter: () => {
      throw new Error('not asked for')
    },
    log: { debug() {}, info() {}, warn() {}, error() {} },
    onRefused() {},
  })
  const ttl = configuration.ttl as Record<string, number | ((ctx: KoaContextWithOIDC) => number)>
  // every model the library gives a default, also those that are off
  const { defaults } = await import('oidc-provider/lib/helpers/defaults.js' as string)
  assert.deepEqual(Object.keys(ttl).sort(), Object.keys(defaults.ttl).sort())
  const now = Math.floor(Date.now() / 1_000)
  for (const [model, lifetime] of Object.entries(ttl)) {
    for (const left of [sessionSeconds, 90, 1]) {
      const ctx = { oidc: { entities: { Grant: { exp: now + left } } } } as unknown as KoaContextWithOIDC
      if (typeof lifetime === 'number') assert.ok(lifetime <= sessionSeconds, model)
      else assert.ok(lifetime(ctx) <= left, model)
    }
  }
})

test('PKCE with S256 is required', async () => {
  await using stage = await startStage()
  for (const method of [undefined, 'plain']) {
    const page = await openAuthorization(stage, (parameters) => {
      if (method === undefined) parameters.delete('code_challenge')
      if (method === undefined) parameters.delete('code_challenge_method')
      else parameters.set('code_challenge_method', method)
    })
    assert.ok(isLoopbackCallback(page.url))
    assert.equal(page.url.searchParams.get('error'), 'invalid_request')
  }
})

test('a redirect goes to this machine and nowhere else', async () => {
  await using stage = await startStage()
  const wrong = [
    'https://evil.example/callback',
    'http://127.0.0.1.evil.example/callback',
    'http://127.0.0.1:1/other',
  ]
  for (const redirect of [
    ...wrong,
    'http://localhost:5000/callback',
    'javascript:alert(1)',
    'http://10.0.0.1/callback',
  ]) {
    const page = await openAuthorization(stage, (parameters) => parameters.set('redirect_uri', redirect))
    assert.equal(page.status, 400, redirect)
    assert.equal(codeOn(page), 'LOGIN_FAILED')
  }
  const page = await openAuthorization(stage, (at) =>
    at.set('redirect_uri', 'http://127.0.0.1:1024/callback'),
  )
  assert.match(page.body, /waiting on http:\/\/127\.0\.0\.1:1024/)
})

test('an unknown client is refused with a page that holds none of its markup', async () => {
  await using stage = await startStage()
  const page = await openAuthorization(stage, (parameters) => {
    parameters.set('client_id', '<script>alert(1)</script>')
    parameters.set('redirect_uri', 'http://127.0.0.1/callback"><script>')
  })
  assert.equal(page.status, 400)
  assert.doesNotMatch(page.body, /<script/)
  assert.match(page.body, /postern login --edge https:\/\/edge\.localhost/)
})

test('Host and the TLS server name must be the edge', async () => {
  await using stage = await startStage()
  const path = '/.well-known/openid-configuration'
  const port = new URL(stage.origin).port
  for (const host of ['evil.example', EDGE_HOST, `other.localhost:${port}`]) {
    assert.equal((await stage.request({ path, headers: { host } })).status, 421, host)
  }
  assert.equal((await stage.request({ path, servername: 'other.localhost' })).status, 421)
  assert.equal((await stage.request({ path: `https://evil.example/oauth/auth` })).status, 404)
  assert.equal((await stage.request({ path })).status, 200)
})

test('no answer invites pages of other origins', async () => {
  await using stage = await startStage()
  const origin = 'https://evil.example'
  const paths = [
    '/.well-known/openid-configuration',
    '/oauth/jwks',
    '/oauth/auth?client_id=postern-cli',
    '/login/callback',
  ]
  for (const path of paths) {
    const { headers } = await stage.request({ path, headers: { origin } })
    assert.deepEqual(
      Object.keys(headers).filter((name) => name.startsWith('access-control-')),
      [],
      path,
    )
  }
  const body = 'grant_type=refresh_token&client_id=postern-cli&refresh_token=x'
  const answer = await stage.request({
    path: '/oauth/token',
    method: 'POST',
    headers: { ...FORM, origin },
    body,
  })
  assert.equal(answer.status, 400)
  assert.equal(answer.headers['access-control-allow-origin'], undefined)
})

test('a body of more than 16 KiB, or of unknown length, is refused unread', async () => {
  await using stage = await startStage()
  for (const path of ['/oauth/token', '/login/dev?state=x']) {
    const large = await stage.request({
      path,
      method: 'POST',
      headers: FORM,
      body: `a=${'b'.repeat(17_000)}`,
    })
    assert.equal(large.status, 413, path)
    const chunked = await stage.request({
      path,
      method: 'POST',
      headers: { ...FORM, 'transfer-encoding': 'chunked' },
    })
    assert.equal(chunked.status, 400, path)
  }
})

test("a request that is not the login's is left alone", async () => {
  await using stage = await startStage()
  const answer = await stage.request({ path: '/v1/session' })
  assert.equal(answer.headers['content-type'], 'application/json')
  assert.match(answer.body, /SIGN_IN_REQUIRED/)
})

test('keys are made once, readable by the edge only, and never go out', async () => {
  await using stage = await startStage()
  await logIn(stage)
  const path = join(stage.dataDir, 'login-keys.json')
  assert.equal(statSync(path).mode & 0o777, 0o600)
  const before = readFileSync(path, 'utf8')
  const [one, two] = await Promise.all([loadLoginKeys(stage.dataDir), loadLoginKeys(stage.dataDir)])
  assert.deepEqual(one, two)
  assert.equal(readFileSync(path, 'utf8'), before)
  const { keys } = JSON.parse((await stage.request({ path: '/oauth/jwks' })).body)
  assert.equal(keys.length, 1)
  assert.equal(keys[0].d, undefined)
})
