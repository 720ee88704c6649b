import assert from 'node:assert/strict'
import { test } from 'node:test'
import { PosternError } from '@postern/shared/errors'
import * as oidc from 'openid-client'
import { generateDpopKey, jwkThumbprint } from '../api/dpop.ts'
import { EdgeApi } from '../api/edge-api.ts'
import { explainDeviceFailure, signInWithCode } from './device.ts'
import { createDpopHandle, explainOauthError } from './oauth.ts'

function answer(error: string): PosternError {
  return explainOauthError(Object.assign(new Error(error), { error, error_description: `${error} said` }), 0)
}

test('every end of a code is a clear sentence with the next step', () => {
  for (const error of [undefined, answer('expired_token')]) {
    const told = explainDeviceFailure(error) as PosternError
    assert.equal(told.code, 'LOGIN_FAILED')
    assert.match(told.message, /nobody typed the code/)
    assert.match(told.hint, /run the command again/)
  }
  assert.equal((explainDeviceFailure(answer('access_denied')) as PosternError).code, 'LOGIN_REFUSED')
  const used = explainDeviceFailure(answer('invalid_grant')) as PosternError
  assert.deepEqual([used.code, used.message], ['LOGIN_FAILED', 'the code is not good any more'])
  const other = new PosternError('EDGE_UNTRUSTED', 'x')
  assert.equal(explainDeviceFailure(other), other)
})

const ORIGIN = 'https://edge.localhost'

/** An edge that gives a code and then answers the polls one after the other. */
async function signInAt(answers: (object | Error)[], verificationUri = `${ORIGIN}/device`) {
  const asked: { at: number; body: URLSearchParams }[] = []
  const config = new oidc.Configuration(
    { issuer: ORIGIN, token_endpoint: `${ORIGIN}/token`, device_authorization_endpoint: `${ORIGIN}/device` },
    'postern-cli',
    undefined,
    oidc.None(),
  )
  config[oidc.customFetch] = async (url, options) => {
    if (new URL(url).pathname === '/device') {
      const code = { device_code: 'd', user_code: 'BCDF-GHJK', verification_uri: verificationUri }
      return Response.json({ ...code, expires_in: 600, interval: 0.01 })
    }
    asked.push({ at: performance.now(), body: new URLSearchParams(String(options.body)) })
    const answer = answers.shift()!
    if (answer instanceof Error) throw answer
    return Response.json(answer, { status: 'error' in answer ? 400 : 200 })
  }
  using api = new EdgeApi({ origin: ORIGIN })
  const dpopKey = generateDpopKey()
  const DPoP = await createDpopHandle(config, api, dpopKey)
  const key = { DPoP, thumbprint: jwkThumbprint(dpopKey) }
  return { asked, tokens: signInWithCode(api, config, key, 60_000) }
}

test('it polls until the code was typed, and after slow_down five seconds slower', async () => {
  const { asked, tokens } = await signInAt([
    { error: 'authorization_pending' },
    { error: 'slow_down' },
    { access_token: 'a', token_type: 'DPoP' },
  ])
  assert.equal((await tokens).access_token, 'a')
  assert.equal(asked.length, 3)
  assert.equal(asked[0]?.body.get('device_code'), 'd')
  assert.ok(asked[2]!.at - asked[1]!.at >= 4_900)
})

test('a network that fails in between does not end the login; a refusal does', async () => {
  const gone = new PosternError('EDGE_UNREACHABLE', 'cannot reach edge.localhost')
  const { asked, tokens } = await signInAt([gone, { error: 'access_denied', error_description: 'given up' }])
  await assert.rejects(tokens, { code: 'LOGIN_REFUSED', message: 'given up' })
  assert.equal(asked.length, 2)
})

test('a page of somebody else is not shown', async () => {
  const { tokens } = await signInAt([], 'https://evil.example/device')
  await assert.rejects(tokens, { code: 'EDGE_UNTRUSTED' })
})
