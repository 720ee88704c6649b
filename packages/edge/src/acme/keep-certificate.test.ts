import assert from 'node:assert/strict'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import type { IncomingMessage, ServerResponse } from 'node:http'
import https from 'node:https'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { json } from 'node:stream/consumers'
import { after, before, beforeEach, describe, it } from 'node:test'
import { PosternError } from '@postern/shared/errors'
import { type Authority, createAuthorities } from '../ca/authorities.ts'
import { issueEdgeCertificate } from '../ca/issue-edge.ts'
import type { AcmeConfig } from '../config/config.ts'
import { CertificateKeeper, type KeeperParts, type RenewalAdvice } from './keep-certificate.ts'
import { takeTurnAlone } from './order-turns.ts'
import { certificateId } from './renewal-plan.ts'
import { AcmeState } from './state.ts'
import { TlsAlpnChallenge } from './tls-alpn-challenge.ts'

/** Answers that no pebble gives. What a real server does is in test/gets-its-certificate-by-acme.test.ts. */

const HOUR_MS = 3_600_000
const NOW = Date.now()
const scratch = mkdtempSync(path.join(tmpdir(), 'postern-acme-'))

describe('an ACME server that', () => {
  let server: https.Server
  let authority: Authority
  let caPem = ''
  let origin = ''
  let requests = 0
  let answer: (request: IncomingMessage, response: ServerResponse) => void
  let folders = 0
  let dataDir = ''

  before(async () => {
    authority = (await createAuthorities(scratch, NOW)).edge
    const { certificate, key } = await issueEdgeCertificate(authority, 'ca.localhost', NOW)
    caPem = authority.certificatePem
    server = https.createServer({ cert: certificate, key }, (request, response) => {
      requests += 1
      answer(request, response)
    })
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    origin = `https://ca.localhost:${(server.address() as AddressInfo).port}`
  })
  beforeEach(() => {
    requests = 0
    dataDir = path.join(scratch, `state-${++folders}`)
  })
  after(() => {
    server.close()
    server.closeAllConnections()
    rmSync(scratch, { recursive: true })
  })

  const configOf = (more: Partial<AcmeConfig> = {}): AcmeConfig => ({
    kind: 'acme',
    directory: new URL(`${origin}/dir`),
    caPem,
    email: undefined,
    names: ['edge.test', 'mtls.edge.test'],
    challenge: { type: 'tls-alpn-01' },
    externalAccount: undefined,
    firstRetryMs: 60_000,
    ...more,
  })

  /** One attempt of a keeper of this `data_dir`, with a clock that stands still. */
  async function attempt(config = configOf()): Promise<{ error: PosternError; waitMs: number }> {
    const failed = Promise.withResolvers<{ error: PosternError; waitMs: number }>()
    await using keeper = openKeeper(config, {
      onFailed: (error, nextAttemptAt) => failed.resolve({ error, waitMs: nextAttemptAt - NOW }),
    })
    await keeper.open()
    keeper.start()
    return await failed.promise
  }

  function openKeeper(config: AcmeConfig, parts: Partial<KeeperParts>): CertificateKeeper {
    return new CertificateKeeper(config, {
      state: new AcmeState(dataDir),
      solver: new TlsAlpnChallenge(),
      takeTurn: takeTurnAlone,
      clock: () => NOW,
      random: () => 1,
      onCertificate: () => assert.fail('there is none'),
      onFailed: assert.fail,
      onAdvice: () => assert.fail('there is none'),
      onNoAdvice: () => assert.fail('it is not asked'),
      ...parts,
    })
  }

  const directory = () => ({
    newNonce: `${origin}/nonce`,
    newAccount: `${origin}/account`,
    newOrder: `${origin}/order`,
  })
  /** The account is there; what becomes of an order is the test's. */
  const onOrder = (order: (response: ServerResponse) => void) => {
    answer = ({ url }, response) => {
      response.setHeader('replay-nonce', `n${requests}`)
      if (url === '/dir') return void response.end(JSON.stringify(directory()))
      if (url === '/nonce') return void response.end()
      if (url === '/account')
        return void response.writeHead(201, { location: `${origin}/account/1` }).end('{}')
      order(response)
    }
  }
  const problem = (response: ServerResponse, status: number, kind: string, retryAfter?: string) => {
    if (retryAfter) response.setHeader('retry-after', retryAfter)
    response.writeHead(status, { 'content-type': 'application/problem+json' })
    response.end(JSON.stringify({ type: `urn:ietf:params:acme:error:${kind}`, detail: 'no \u001b[2J more' }))
  }

  it('limits the rate is asked again when it says, also after a restart', async () => {
    onOrder((response) => problem(response, 429, 'rateLimited', String((5 * HOUR_MS) / 1_000)))
    const { error, waitMs } = await attempt()
    assert.equal(error.code, 'ACME_RATE_LIMITED')
    assert.match(error.message, /ca\.localhost:\d+ refuses: rateLimited: no {2}\[2J more$/)
    assert.equal(waitMs, 5 * HOUR_MS)

    requests = 0
    await using again = openKeeper(configOf(), {})
    await again.open()
    again.start()
    assert.equal(again.nextAttemptAt, NOW + 5 * HOUR_MS)
    await using changed = openKeeper(configOf({ names: ['edge.test'] }), {})
    await changed.open()
    assert.equal(changed.nextAttemptAt, 0) // whoever has corrected something need not wait
    assert.equal(requests, 0)
  })

  it('asks for a year, or for the past, is not believed', async () => {
    onOrder((response) => problem(response, 503, 'serverInternal', '99999999'))
    const long = await attempt()
    assert.equal(long.error.code, 'ACME_UNREACHABLE')
    assert.equal(long.waitMs, 7 * 24 * HOUR_MS)
    dataDir += '-b'
    onOrder((response) => problem(response, 403, 'unauthorized', 'Wed, 21 Oct 2015 07:28:00 GMT'))
    const past = await attempt()
    assert.equal(past.error.code, 'ACME_REFUSED')
    assert.equal(past.waitMs, 60_000)
  })

  it('refuses every time is asked ever more rarely', async () => {
    onOrder((response) => problem(response, 403, 'rejectedIdentifier'))
    const waits: number[] = []
    const state = new AcmeState(dataDir)
    for (let turn = 0; turn < 9; turn++) {
      waits.push((await attempt()).waitMs)
      const kept = await state.readAttempts()
      await state.writeAttempts({ ...kept!, notBefore: 0 }) // as if the wait were over
    }
    assert.deepEqual(waits.slice(0, 4), [60_000, 150_000, 375_000, 937_500])
    assert.deepEqual(waits.slice(-2), [6 * HOUR_MS, 6 * HOUR_MS])
  })

  it('hangs while the edge is killed is asked no sooner for that', async () => {
    const state = new AcmeState(dataDir)
    let kept: Awaited<ReturnType<typeof state.readAttempts>>
    const asked = Promise.withResolvers<void>()
    answer = async () => {
      kept = await state.readAttempts() // what a kill would leave behind
      asked.resolve()
    }
    {
      await using keeper = openKeeper(configOf(), {})
      await keeper.open()
      keeper.start()
      await asked.promise
    }
    assert.deepEqual([kept?.failures, kept?.notBefore], [1, NOW + 60_000])
    const stopped = await state.readAttempts()
    assert.deepEqual([stopped?.failures, stopped?.notBefore], [0, 0]) // it was ended in order

    await state.writeAttempts({ ...kept!, notBefore: NOW + 365 * 24 * HOUR_MS })
    await using later = openKeeper(configOf(), {})
    await later.open()
    assert.equal(later.nextAttemptAt, NOW + 7 * 24 * HOUR_MS) // written with a clock that was wrong
  })

  it('answers with something else is named as such', async () => {
    const answers: [string, (response: ServerResponse) => void][] = [
      ['a page', (response) => response.end('<html>hotel wifi</html>')],
      ['other JSON', (response) => response.end('{"newNonce": 7}')],
      ['plain http', (response) => response.end(JSON.stringify({ ...directory(), newOrder: 'http://x/' }))],
      ['too much', (response) => response.end(Buffer.alloc(600_000, ' '))],
    ]
    for (const [what, say] of answers) {
      answer = (_request, response) => say(response)
      dataDir += 'x'
      const { error } = await attempt()
      assert.equal(error.code, 'ACME_PROTOCOL_INVALID', `${what}: ${error.message}`)
      assert.equal(requests, 1, what)
      requests = 0
    }
    dataDir += 'x'
    onOrder((response) => response.writeHead(201).end(JSON.stringify({ status: 'pending' })))
    assert.equal((await attempt()).error.code, 'ACME_PROTOCOL_INVALID')
  })

  it('never takes a nonce is left after a bounded number', async () => {
    onOrder((response) => problem(response, 400, 'badNonce'))
    const { error } = await attempt()
    assert.match(error.message, /has refused 25 nonces of its own/)
    assert.ok(requests < 60, `${requests}`)
  })

  /** The edge has a certificate of this server, made so long ago. */
  async function keepCertificate(ageMs: number): Promise<string> {
    const { certificate, key } = await issueEdgeCertificate(authority, 'edge.test', NOW - ageMs)
    const { directory, names } = configOf()
    await new AcmeState(dataDir).writeCertificate({
      directory: directory.href,
      names: [...names],
      cert: certificate,
      key,
    })
    return certificate
  }

  /** Its directory names a place for renewal information, which says this. */
  const onRenewalInfo = (say: (response: ServerResponse, url: string) => void) => {
    answer = ({ url = '' }, response) => {
      if (url !== '/dir') return say(response, url)
      response.end(JSON.stringify({ ...directory(), renewalInfo: `${origin}/renewal-info/` }))
    }
  }

  it('advises when to renew is heard: within its window', async () => {
    const cert = await keepCertificate(0)
    const asked: string[] = []
    const at = (ms: number) => new Date(NOW + ms).toISOString()
    onRenewalInfo((response, url) => {
      asked.push(url)
      const suggestedWindow = { start: at(24 * HOUR_MS), end: at(48 * HOUR_MS) }
      response.end(JSON.stringify({ suggestedWindow, explanationURL: 'https://ca.test/why' }))
    })
    const heard = Promise.withResolvers<RenewalAdvice>()
    await using keeper = openKeeper(configOf(), { random: () => 0.5, onAdvice: heard.resolve })
    await keeper.open()
    keeper.start()
    const advice = await heard.promise
    assert.deepEqual(asked, [`/renewal-info/${certificateId(cert)}`])
    assert.deepEqual(advice.window, { start: NOW + 24 * HOUR_MS, end: NOW + 48 * HOUR_MS })
    assert.equal(advice.nextAttemptAt, NOW + 36 * HOUR_MS)
    assert.equal(keeper.nextAttemptAt, NOW + 36 * HOUR_MS)
    assert.equal(advice.explanationUrl, 'https://ca.test/why')
  })

  it('advises nothing that can be used is asked once, and the certificate renewed as ever', async () => {
    await keepCertificate(0)
    const window = (start: string, end: string) => JSON.stringify({ suggestedWindow: { start, end } })
    const answers: [string, string, (response: ServerResponse) => void][] = [
      ['a page', 'ACME_PROTOCOL_INVALID', (response) => response.end('<html>')],
      ['no window', 'ACME_PROTOCOL_INVALID', (response) => response.end('{}')],
      [
        'the end first',
        'ACME_PROTOCOL_INVALID',
        (response) => response.end(window('2030-01-02T00:00:00Z', '2030-01-01T00:00:00Z')),
      ],
      ['too much', 'ACME_PROTOCOL_INVALID', (response) => response.end(Buffer.alloc(600_000, ' '))],
      ['unknown', 'ACME_REFUSED', (response) => problem(response, 404, 'malformed')],
      ['too many', 'ACME_RATE_LIMITED', (response) => problem(response, 429, 'rateLimited', '9')],
      ['broken', 'ACME_UNREACHABLE', (response) => response.writeHead(502).end()],
    ]
    for (const [what, code, say] of answers) {
      onRenewalInfo(say)
      requests = 0
      const failed = Promise.withResolvers<PosternError>()
      const onNoAdvice = (error: unknown) => failed.resolve(error as PosternError)
      await using keeper = openKeeper(configOf(), { onNoAdvice })
      await keeper.open()
      const planned = keeper.nextAttemptAt
      keeper.start()
      assert.equal((await failed.promise).code, code, what)
      assert.equal(keeper.nextAttemptAt, planned, what)
      assert.ok(planned > NOW + 24 * HOUR_MS, what)
      assert.equal(requests, 2, what)
    }
  })

  it('is told which certificate it replaces, and nothing of that when it minds', async () => {
    const cert = await keepCertificate(29 * 24 * HOUR_MS)
    const orders: object[] = []
    const failed = Promise.withResolvers<PosternError>()
    onOrder(() => {})
    const accountOf = answer
    answer = async (request, response) => {
      if (request.url === '/dir') {
        const renewalInfo = `${origin}/renewal-info`
        return void response.end(JSON.stringify({ ...directory(), renewalInfo }))
      }
      if (request.url?.startsWith('/renewal-info')) return problem(response, 404, 'malformed')
      if (request.url !== '/order') return accountOf(request, response)
      const { payload } = (await json(request)) as { payload: string }
      orders.push(JSON.parse(Buffer.from(payload, 'base64url').toString()))
      response.setHeader('replay-nonce', `n${requests}`)
      if (orders.length === 1) problem(response, 409, 'alreadyReplaced')
      else problem(response, 429, 'rateLimited')
    }
    await using keeper = openKeeper(configOf(), { onFailed: failed.resolve, onNoAdvice: () => {} })
    await keeper.open()
    keeper.start()
    assert.equal((await failed.promise).code, 'ACME_RATE_LIMITED')
    const identifiers = configOf().names.map((value) => ({ type: 'dns', value }))
    assert.deepEqual(orders, [{ identifiers, replaces: certificateId(cert) }, { identifiers }])
  })

  it('is still busy when another edge has its turn is left at once', async () => {
    const over = new AbortController()
    answer = () => over.abort(new PosternError('STORE_LOST', 'not its turn any more'))
    const failed = Promise.withResolvers<PosternError>()
    await using keeper = openKeeper(configOf(), {
      takeTurn: async () => ({ signal: over.signal, async [Symbol.asyncDispose]() {} }),
      onFailed: failed.resolve,
    })
    await keeper.open()
    keeper.start()
    const { code, message } = await failed.promise
    assert.deepEqual([code, message], ['STORE_LOST', 'not its turn any more'])
    assert.equal(keeper.nextAttemptAt, NOW + 60_000)
    assert.equal(requests, 1)
  })

  it('sends elsewhere is not followed', async () => {
    answer = (_request, response) => response.writeHead(302, { location: 'https://evil.test/' }).end()
    const { error } = await attempt()
    assert.equal(error.code, 'ACME_PROTOCOL_INVALID')
    assert.match(error.message, /\/dir is no directory of an ACME server: it answers with status 302$/)
    assert.equal(requests, 1)
  })

  it('has a certificate of nobody we know is told nothing', async () => {
    onOrder((response) => response.end('{}'))
    const { error } = await attempt(configOf({ caPem: undefined }))
    assert.equal(error.code, 'ACME_UNREACHABLE')
    assert.match(error.message, /its certificate is of no CA that is known here$/)
    assert.match(error.hint, /tls\.acme\.ca_file$/)
    assert.equal(requests, 0)
  })
})
