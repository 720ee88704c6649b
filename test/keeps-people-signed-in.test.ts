import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { X509Certificate } from 'node:crypto'
import { globSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { after, before, test } from 'node:test'
import { type ConnectedService, connectService } from './support/connect-service.ts'
import { makeDevBrowser, makePerson } from './support/dev-browser.ts'
import { type EdgeProcess, startEdge } from './support/edge-process.ts'
import { runPostern } from './support/postern.ts'
import { startEcho, type TcpService } from './support/tcp-services.ts'
import { clientCertificateOf } from './support/tls-peer.ts'
import { until } from './support/until.ts'

/** One login lasts for its session: tokens are renewed without a word, and not for longer. */

let edge: EdgeProcess
let echo: TcpService
let operator: string
let service: ConnectedService

before(async () => {
  edge = await startEdge()
  echo = await startEcho()
  operator = await makePerson(edge, 'operator@mycorp.com')
  service = await connectService({ home: operator, port: echo.port })
})
after(async () => {
  await service?.[Symbol.asyncDispose]()
  await echo?.[Symbol.asyncDispose]()
  await edge?.[Symbol.asyncDispose]()
})

const sessionFile = (home: string) => globSync(path.join(home, 'edges', '*', 'session.json'))[0]!
const readSession = (home: string) => JSON.parse(readFileSync(sessionFile(home), 'utf8'))

/** The access token is over, as it is half an hour after a login. */
function outliveAccessToken(home: string): void {
  writeFileSync(sessionFile(home), JSON.stringify({ ...readSession(home), accessExpiresAt: 0 }))
}

const countLogins = async () => {
  const { stdout } = await runPostern(['audit', 'list', '--type', 'login.ok', '--json', '--limit', '1000'], {
    home: operator,
  })
  return stdout.split('\n').filter(Boolean).length
}

test('a new access token without a new login, and the same refresh token', async () => {
  const home = await makePerson(edge, 'ann@mycorp.com')
  const before = readSession(home)
  outliveAccessToken(home)
  const whoami = await runPostern(['whoami', '--batch'], { home })
  assert.equal(whoami.code, 0, whoami.stderr)
  assert.equal(whoami.stderr, '')
  const renewed = readSession(home)
  assert.notEqual(renewed.accessToken, before.accessToken)
  assert.equal(renewed.refreshToken, before.refreshToken)
  assert.equal(renewed.expiresAt, before.expiresAt, 'the session is not prolonged')
  assert.equal(statSync(sessionFile(home)).mode & 0o777, 0o600)
})

test('ten commands at once with an access token that is over', async () => {
  const home = await makePerson(edge, 'ann@mycorp.com')
  outliveAccessToken(home)
  const results = await Promise.all(
    Array.from({ length: 10 }, () =>
      runPostern(['client', 'tls', '--host', service.host], { home, stdin: 'hello' }),
    ),
  )
  for (const result of results) assert.deepEqual([result.stdout, result.code], ['hello', 0], result.stderr)
})

test('a command that may ask signs in by itself; of five at once one does', async () => {
  const home = await makePerson(edge, 'ann@mycorp.com')
  const browser = await makeDevBrowser(edge, home, 'ann@mycorp.com')
  assert.equal((await runPostern(['logout'], { home })).code, 0)
  const before = await countLogins()
  const results = await Promise.all(
    Array.from({ length: 5 }, () =>
      runPostern(['client', 'tls', '--host', service.host, '--browser', browser], { home, stdin: 'hello' }),
    ),
  )
  for (const result of results) assert.deepEqual([result.stdout, result.code], ['hello', 0], result.stderr)
  assert.equal(await countLogins(), before + 1)
})

test('after a logout neither token is worth anything', async () => {
  const home = await makePerson(edge, 'ann@mycorp.com')
  const file = sessionFile(home)
  const stolen = readFileSync(file)
  assert.equal((await runPostern(['logout'], { home })).code, 0)
  for (const outlive of [false, true]) {
    writeFileSync(file, stolen, { mode: 0o600 })
    if (outlive) outliveAccessToken(home)
    const result = await runPostern(['whoami', '--batch'], { home })
    assert.equal(result.code, 4, result.stderr)
    assert.match(result.stderr, new RegExp(`SESSION_ENDED.*\n.*postern login --edge ${edge.origin}\n`))
  }
})

test('a stolen access token opens nothing without its key', async () => {
  const home = await makePerson(edge, 'ann@mycorp.com')
  const { accessToken } = readSession(home)
  for (const scheme of ['Bearer', 'DPoP']) {
    const status = execFileSync('curl', [
      ...['-sS', '--cacert', edge.caFile, '--resolve', `edge.localhost:${edge.port}:127.0.0.1`],
      ...['-o', '/dev/null', '-w', '%{http_code}', '-H', `Authorization: ${scheme} ${accessToken}`],
      `${edge.origin}/v1/session`,
    ])
    assert.equal(String(status), '401', scheme)
  }
})

test('a session ends at its time, whatever was done in between, and no certificate outlives it', async () => {
  await using brief = await startEdge({ config: { certificates: { session: '10s' } } })
  const home = await makePerson(brief, 'operator@mycorp.com')
  await using own = await connectService({ home, port: echo.port })
  const { expiresAt } = readSession(home)
  const reach = () => runPostern(['client', 'tls', '--host', own.host, '--batch'], { home, stdin: 'hello' })
  assert.equal((await reach()).stdout, 'hello')
  const { validTo } = new X509Certificate(clientCertificateOf(home, own.label).cert)
  assert.ok(Date.parse(validTo) <= expiresAt, `${validTo} is after the session`)
  const over = await until('the session is over', async () => {
    outliveAccessToken(home)
    const result = await runPostern(['whoami', '--batch'], { home })
    return result.code !== 0 && result
  })
  assert.ok(Date.now() >= expiresAt - 1_000, 'it ended early')
  assert.equal(over.code, 4)
  assert.match(over.stderr, /SESSION_ENDED/)
  const late = await reach()
  assert.equal(late.code, 4, late.stderr)
  assert.match(late.stderr, new RegExp(`postern login --edge ${brief.origin}\n`))
})
