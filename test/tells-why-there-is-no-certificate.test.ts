import assert from 'node:assert/strict'
import { chmodSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { test } from 'node:test'
import { findFreePort } from '../demo/free-port.ts'
import { type EdgeProcess, startEdge } from './support/edge-process.ts'
import { METRICS_ON, readMetrics } from './support/metrics.ts'
import { startPebble } from './support/pebble.ts'
import { type Certificate, certificateOf, runPosternEdge } from './support/postern-edge.ts'
import { shownCertificate } from './support/shown-certificate.ts'
import { startGreeter, startSink } from './support/tcp-services.ts'
import { makeTempFolder } from './support/temp-folder.ts'
import { until } from './support/until.ts'

const statusOf = (edge: EdgeProcess) => runPosternEdge(edge, ['status'])

/** @returns once an attempt has failed */
async function failedCertificateOf(edge: EdgeProcess): Promise<Certificate & { failure: object }> {
  return until('an attempt has failed', async () => {
    const { failure, ...certificate } = await certificateOf(edge)
    return failure && { ...certificate, failure }
  })
}

test('a CA that is away: the edge runs, waits over a restart, and has its certificate once the CA is back', async () => {
  const port = await findFreePort()
  await using pebble = await startPebble({ tlsPort: port })
  const AWAITED = 'postern_server_certificate_awaited'
  const configOf = (retry: string) => ({
    metrics: METRICS_ON,
    tls: { acme: { ...pebble.settings, retry } },
  })
  await pebble.stop()
  const first = await startEdge({ port, config: configOf('2h') })
  const certificate = await failedCertificateOf(first)
  assert.equal(certificate.isAwaited, true)
  assert.equal(certificate.challenge, 'tls-alpn-01')
  assert.equal((await readMetrics(first)).get(AWAITED), 1)
  assert.ok(certificate.nextAttemptAt! > Date.now() + 30 * 60_000)
  assert.match(
    (await statusOf(first)).stdout,
    /failed {8}.*1 in a row: cannot reach the ACME server .*ACME_UNREACHABLE\)\nwhat to do {4}look at the network/,
  )
  assert.match(
    first.logs(),
    /ready at .*\n {2}its first certificate is still to come, how far it is: postern-edge status/,
  )
  assert.match(first.logs(), /"nextAttemptAt":"\d{4}-\d\d-\d\dT[\d:.]+Z"/)
  await shownCertificate(first, 'edge.localhost', first.caFile) // of its own CA meanwhile
  await first.kill9()
  const gone = await statusOf(first)
  assert.equal(gone.code, 6)
  assert.match(gone.stderr, /no edge is running with .*EDGE_UNREACHABLE/)

  const { dataDir } = first
  const second = await startEdge({ port, dataDir, config: configOf('2h') })
  const waiting = await certificateOf(second)
  assert.equal(waiting.nextAttemptAt, certificate.nextAttemptAt)
  assert.equal(waiting.failure, undefined)
  await second.stop()

  await pebble.start()
  const changed = { metrics: METRICS_ON, tls: { acme: { ...pebble.settings, email: 'admin@mycorp.com' } } }
  await using third = await startEdge({ port, dataDir, config: changed })
  const root = await pebble.fetchRoot()
  await until('its certificate is shown', () => shownCertificate(third, 'edge.localhost', root))
  const had = await certificateOf(third)
  assert.equal(had.isAwaited, false)
  assert.equal((await readMetrics(third)).get(AWAITED), 0)
  assert.ok(had.daysLeft > 1_000)
  assert.match(
    (await statusOf(third)).stdout,
    /certificate {3}by ACME, tls-alpn-01\n.*\nvalid until {3}\d.*Z, \d+(\.\d)? days left\n/,
  )
})

test('what the CA refuses, cannot see, or a program cannot do, each with its code', async () => {
  const nobody = await findFreePort()
  await using pebble = await startPebble({ tlsPort: nobody, blockedDomains: ['evil.localhost'] })
  await using nameless = await startPebble({ knowsNoAddress: true })
  await using plain = await startGreeter('SMTP here\n')
  const hook = path.join(makeTempFolder('hook'), 'hook')
  writeFileSync(hook, '#!/bin/sh\necho "the zone is not mine" >&2\nexit 3\n')
  chmodSync(hook, 0o755)
  const rows: [Record<string, unknown>, string, RegExp][] = [
    [
      {},
      'ACME_CHALLENGE_FAILED',
      /edge\.localhost could not be proven by tls-alpn-01: unauthorized: Failed to connect/,
    ],
    [
      { challenge: 'dns-01', dns_hook: hook },
      'ACME_HOOK_FAILED',
      /hook present failed \(3\): the zone is not mine/,
    ],
    [{ ca_file: undefined }, 'ACME_UNREACHABLE', /its certificate is of no CA that is known here$/],
    [
      { directory: pebble.settings.directory.replace(/dir$/, 'directory') },
      'ACME_PROTOCOL_INVALID',
      /\/directory is no directory of an ACME server: it answers with status 404$/,
    ],
    [
      { directory: `https://ca.localhost:${plain.port}/dir` },
      'ACME_UNREACHABLE',
      /ca\.localhost:\d+: it speaks no TLS, or none that is understood here$/,
    ],
    [
      { directory: nameless.settings.directory, ca_file: nameless.settings.ca_file },
      'ACME_CHALLENGE_FAILED',
      /could not be proven by tls-alpn-01: /,
    ],
  ]
  const tryOut = async ([more, code, message]: (typeof rows)[number]) => {
    await using edge = await startEdge({ config: { tls: { acme: { ...pebble.settings, ...more } } } })
    const { failure } = (await failedCertificateOf(edge)) as Certificate
    assert.equal(failure?.code, code)
    assert.match(failure.message, message)
    assert.ok(failure.hint, code)
    await shownCertificate(edge, 'edge.localhost', edge.caFile)
  }
  await Promise.all(rows.map(tryOut))
  const acme = { ...pebble.settings }
  await using edge = await startEdge({ config: { domain: 'evil.localhost', tls: { acme } } })
  const { failure } = (await failedCertificateOf(edge)) as Certificate
  assert.equal(failure?.code, 'ACME_REFUSED')
  assert.match(failure.message, /rejectedIdentifier/)
})

test('a CA that has had too many orders is asked again when it says, not sooner, also after a restart', async () => {
  let orders = 0
  await using pebble = await startPebble({
    refuseOrder(response) {
      orders += 1
      response.writeHead(429, { 'content-type': 'application/problem+json', 'retry-after': '7200' })
      const type = 'urn:ietf:params:acme:error:rateLimited'
      response.end(JSON.stringify({ type, detail: 'too many certificates (5) already issued' }))
    },
  })
  const config = { tls: { acme: { ...pebble.settings, retry: '1s' } } }
  const first = await startEdge({ config })
  const certificate = await failedCertificateOf(first)
  const { failure, nextAttemptAt } = certificate as Certificate
  assert.equal(failure?.code, 'ACME_RATE_LIMITED')
  assert.match(failure.message, /refuses: rateLimited: too many certificates \(5\) already issued$/)
  assert.ok(nextAttemptAt! > Date.now() + 110 * 60_000, `${nextAttemptAt}`)
  await first.stop()
  await using second = await startEdge({ config, dataDir: first.dataDir })
  assert.equal((await certificateOf(second)).nextAttemptAt, nextAttemptAt)
  assert.equal(orders, 1)
})

test('a port for HTTP-01 that is taken is told at the start', async () => {
  await using taken = await startSink()
  const acme = {
    ...{ directory: 'https://ca.localhost/dir', accept_terms: true },
    ...{ challenge: 'http-01', http_listen: `127.0.0.1:${taken.port}` },
  }
  await assert.rejects(
    startEdge({ config: { tls: { acme } } }),
    /HTTP-01 challenge cannot be served on 127\.0\.0\.1:\d+ \(EADDRINUSE\) \(CONFIG_INVALID\)/,
  )
})
