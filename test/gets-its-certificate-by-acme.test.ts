import assert from 'node:assert/strict'
import { readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import type { ServerResponse } from 'node:http'
import path from 'node:path'
import { test } from 'node:test'
import { quoteForShell } from '../demo/dev-login.ts'
import { findFreePort } from '../demo/free-port.ts'
import { connectService, spawnConnect } from './support/connect-service.ts'
import { makeDevBrowser, makePerson } from './support/dev-browser.ts'
import { type EdgeProcess, startEdge } from './support/edge-process.ts'
import { METRICS_ON, readMetrics } from './support/metrics.ts'
import { startPebble } from './support/pebble.ts'
import { runPostern } from './support/postern.ts'
import { certificateOf, runPosternEdge } from './support/postern-edge.ts'
import { shownCertificate } from './support/shown-certificate.ts'
import { startGreeter } from './support/tcp-services.ts'
import { makeTempFolder } from './support/temp-folder.ts'
import { until } from './support/until.ts'

const RENEWED = 'postern_server_certificate_renewed_total'

/** The certificate that the edge shows, once it is one of the CA. */
async function shownByAcme(edge: EdgeProcess, root: string) {
  const shown = await until('a certificate of the CA is shown', () =>
    shownCertificate(edge, 'edge.localhost', root),
  ).catch((cause) => {
    throw new Error(edge.logs(), { cause })
  })
  return { names: shown.subjectaltname?.split(', ').sort(), serial: shown.serialNumber }
}

const OWN_NAMES = ['DNS:edge.localhost', 'DNS:mtls.edge.localhost']

test('TLS-ALPN-01 on its own port, though nonces are refused; kept over a restart without the CA', async () => {
  const port = await findFreePort()
  await using pebble = await startPebble({ tlsPort: port, refusedNonces: 50 })
  const acme = { ...pebble.settings, email: 'admin@mycorp.com', names: ['build.edge.localhost'], retry: '1s' }
  const config = { tls: { acme }, metrics: METRICS_ON }
  const root = await pebble.fetchRoot()
  const edge = await startEdge({ port, config })
  const first = await shownByAcme(edge, root)
  assert.deepEqual(first.names, ['DNS:build.edge.localhost', ...OWN_NAMES])
  assert.match(pebble.logs(), /Starting 3 validations/)
  assert.match(edge.logs(), /"event":"edge\.certificate_renewed"/)
  assert.equal((await readMetrics(edge)).get(RENEWED), 1)
  await edge.stop()

  const folder = path.join(edge.dataDir, 'acme')
  const kept = readdirSync(folder).sort()
  assert.match(kept.join(' '), /^account-[0-9a-f]{16}\.json certificate\.json$/)
  for (const name of kept) assert.equal(statSync(path.join(folder, name)).mode & 0o777, 0o600, name)
  const account = JSON.parse(readFileSync(path.join(folder, kept[0]!), 'utf8'))
  assert.deepEqual([account.email, account.directory], ['admin@mycorp.com', pebble.settings.directory])
  await pebble.stop()
  await using again = await startEdge({ port, config, dataDir: edge.dataDir })
  assert.equal((await shownByAcme(again, root)).serial, first.serial)
  assert.doesNotMatch(again.logs(), /certificate_renewal_failed/)
})

test('HTTP-01 on a port beside it; the programs need no CA that is named, and no wildcard', async () => {
  const [port, httpPort] = [await findFreePort(), await findFreePort()]
  await using pebble = await startPebble({ httpPort })
  const acme = { ...pebble.settings, challenge: 'http-01', http_listen: `127.0.0.1:${httpPort}` }
  const before = await startEdge({ port })
  const home = await makePerson(before, 'operator@mycorp.com') // who trusts the edge's own CA
  await using greeter = await startGreeter('hello\n')
  const server = await enrollServer(before, home, greeter)
  await before.stop()
  await using edge = await startEdge({ port, dataDir: before.dataDir, config: { tls: { acme } } })
  const root = await pebble.fetchRoot()
  assert.deepEqual((await shownByAcme(edge, root)).names, OWN_NAMES)
  const answer = await fetch(`http://127.0.0.1:${httpPort}/.well-known/acme-challenge/x`)
  assert.equal(answer.status, 404)
  assert.match(edge.logs(), /sign in: postern login --edge https:\/\/edge\.localhost:\d+\n/)

  const browser = await makeDevBrowser({ origin: edge.origin, caFile: root }, home, 'operator@mycorp.com')
  const login = ['login', '--edge', edge.origin, '--browser', quoteForShell(browser)]
  const env = { NODE_EXTRA_CA_CERTS: root } // one of the public CAs of this machine
  const pinned = await runPostern(login, { home, env })
  assert.equal(pinned.code, 6)
  assert.match(
    pinned.stderr,
    /EDGE_UNTRUSTED[\s\S]*postern login --edge https:\/\/edge\.localhost:\d+ --public-ca\n/,
  )
  const tls = ['client', 'tls', '--batch', '--host', 'crimson-thunder-8434.edge.localhost']
  const tunnel = await runPostern(tls, { home, env })
  assert.equal(tunnel.code, 6)
  assert.match(tunnel.stderr, /EDGE_UNTRUSTED[\s\S]*postern login --edge \S+:\d+ --public-ca\n/)
  const stranger = await runPostern([...login, '--public-ca'], { home })
  assert.equal(stranger.code, 6, 'of a CA that this machine does not know')
  const person = await runPostern([...login, '--public-ca'], { home, env })
  assert.equal(person.code, 0, person.stderr)
  await using refused = spawnConnect({ ...server, env })
  await refused.matches(
    /"code":"EDGE_UNTRUSTED".*"hint":".*postern login --edge https:\/\/edge\.localhost:\d+ --public-ca/,
  )
  await refused.stop()
  await using service = await connectService({ ...server, env, args: [...server.args, '--public-ca'] })
  const client = await runPostern(['client', 'tls', '--host', service.host], { home, env, stdin: 'x' })
  assert.equal(client.stdout, 'hello\nx', client.stderr)
})

/** A connector that trusts the edge's own CA, started once. */
async function enrollServer(edge: EdgeProcess, owner: string, { port }: { port: number }) {
  const claimed = await connectService({ home: owner, port })
  await claimed.stop()
  const home = makeTempFolder('server')
  const tokenFile = path.join(home, 'token')
  const args = ['service', 'enroll-token', claimed.label, '--out', tokenFile]
  const token = await runPostern(args, { home: owner })
  assert.equal(token.code, 0, token.stderr)
  const common = ['--edge', edge.origin, '--enroll-token-file', tokenFile]
  const server = { home, port, allowedEmailDomains: [], args: common }
  await using connector = await connectService({ ...server, args: [...common, '--ca-file', edge.caFile] })
  await connector.stop()
  return server
}

test('a wildcard by DNS-01 through a program, with an account that the CA has given out', async () => {
  const key = Buffer.alloc(32, 7).toString('base64url')
  await using pebble = await startPebble({ externalAccounts: { 'kid-1': key } })
  const keyFile = path.join(makeTempFolder('eab'), 'eab-key')
  writeFileSync(keyFile, `${key}\n`, { mode: 0o600 })
  const acme = {
    ...pebble.settings,
    ...{ challenge: 'dns-01', dns_hook: pebble.dnsHook },
    ...{ eab_key_id: 'kid-1', eab_key_file: keyFile },
  }
  await using edge = await startEdge({ config: { tls: { acme } } })
  const { names } = await shownByAcme(edge, await pebble.fetchRoot())
  assert.deepEqual(names, ['DNS:*.edge.localhost', 'DNS:edge.localhost'])
  const calls = readFileSync(`${pebble.dnsHook}.log`, 'utf8').trim().split('\n')
  const record = '_acme-challenge.edge.localhost'
  assert.deepEqual(calls, [...Array(2).fill(`present ${record}`), ...Array(2).fill(`cleanup ${record}`)])
})

/** Where the CA advises to renew between these times from now, and to ask again in a second. */
const adviseWindow = (startMs: number, endMs: number) => (_id: string, response: ServerResponse) => {
  const at = (ms: number) => new Date(Math.floor(Date.now() / 1_000) * 1_000 + ms).toISOString()
  response.setHeader('retry-after', '1')
  response.end(JSON.stringify({ suggestedWindow: { start: at(startMs), end: at(endMs) } }))
}

test('the CA advises when to renew, and may change its mind', async () => {
  const DAY_MS = 86_400_000
  const port = await findFreePort()
  const asked: string[] = []
  let advise = adviseWindow(100 * DAY_MS, 101 * DAY_MS)
  await using pebble = await startPebble({
    tlsPort: port,
    advise(id, response) {
      asked.push(id)
      advise(id, response)
    },
  })
  await using edge = await startEdge({
    port,
    config: { tls: { acme: { ...pebble.settings, retry: '1s' } } },
  })
  const { serial } = await shownByAcme(edge, await pebble.fetchRoot())
  const advised = await until('the edge has heard it', async () => {
    const { suggestedWindow, nextAttemptAt } = await certificateOf(edge)
    return suggestedWindow && { ...suggestedWindow, nextAttemptAt: nextAttemptAt! }
  })
  const { start, end, nextAttemptAt } = advised
  assert.ok(start <= nextAttemptAt && nextAttemptAt <= end, JSON.stringify(advised))
  assert.match(asked[0]!, /^[\w-]+\.[\w-]+$/)
  const asHex = Buffer.from(asked[0]!.split('.')[1]!, 'base64url').toString('hex')
  assert.equal(asHex.replace(/^0+/, ''), serial.toLowerCase().replace(/^0+/, ''))
  const { stdout } = await runPosternEdge(edge, ['status'])
  assert.match(stdout, /\nadvised {7}between \d.*Z and \d.*Z, by the CA\n/)

  advise = adviseWindow(-2 * DAY_MS, -DAY_MS) // as before all of a CA are revoked
  await until('it is to be renewed soon', async () => {
    const soon = (await certificateOf(edge)).nextAttemptAt!
    return soon < Date.now() + DAY_MS
  })
  assert.equal((await shownByAcme(edge, await pebble.fetchRoot())).serial, serial, 'not in a circle')
})

test('and it is renewed then', async () => {
  const port = await findFreePort()
  const VALIDITY_MS = 120_000
  const advise = adviseWindow(-2_000, -1_000)
  await using pebble = await startPebble({ tlsPort: port, validitySeconds: VALIDITY_MS / 1_000, advise })
  await using edge = await startEdge({
    port,
    config: { tls: { acme: { ...pebble.settings, retry: '1s' } }, metrics: METRICS_ON },
  })
  const root = await pebble.fetchRoot()
  await shownByAcme(edge, root)
  const first = (await certificateOf(edge)).notAfter
  await until('it is renewed', async () => ((await readMetrics(edge)).get(RENEWED) ?? 0) > 1)
  const next = await until('that is told', async () => {
    const { notAfter } = await certificateOf(edge)
    return notAfter > first && notAfter
  })
  assert.ok(next - first < VALIDITY_MS / 2, `${next - first} ms; without advice more than half of its life`)
})
