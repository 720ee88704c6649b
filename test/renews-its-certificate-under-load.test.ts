import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { test } from 'node:test'
import { findFreePort } from '../demo/free-port.ts'
import { connectService } from './support/connect-service.ts'
import { makePerson } from './support/dev-browser.ts'
import { startEdge } from './support/edge-process.ts'
import { METRICS_ON, readMetrics } from './support/metrics.ts'
import { startPebble } from './support/pebble.ts'
import { runPostern, spawnPostern } from './support/postern.ts'
import { shownCertificate } from './support/shown-certificate.ts'
import { startEcho } from './support/tcp-services.ts'
import { until, within } from './support/until.ts'

const FLOWS = 10
const CHUNK = Buffer.from(Array.from({ length: 16_384 }, (_, index) => (index * 31) % 251))
const RENEWED = 'postern_server_certificate_renewed_total'

test('renewals while ten flows are pumped: none of them notices, and every byte is the same', async () => {
  const port = await findFreePort()
  await using pebble = await startPebble({ tlsPort: port, validitySeconds: 24 })
  const tls = { acme: { ...pebble.settings, retry: '1s' } }
  await using edge = await startEdge({ port, config: { tls, metrics: METRICS_ON } })
  const caFile = await pebble.fetchRoot()
  await until('the first certificate is shown', () => shownCertificate(edge, 'edge.localhost', caFile))
  const renewals = async () => (await readMetrics(edge)).get(RENEWED) ?? 0
  const home = await makePerson({ origin: edge.origin, caFile }, 'operator@mycorp.com')
  await using echo = await startEcho()
  await using service = await connectService({ home, port: echo.port })
  await runPostern(['client', 'tls', '--host', service.host], { home, stdin: '' }) // has its certificate

  const before = await renewals()
  const over = new AbortController()
  const flows = Array.from({ length: FLOWS }, () => pump(home, service.host, over.signal))
  await until('a certificate is renewed', async () => (await renewals()) > before)
  await within('each flow carries on', Promise.all(flows.map((flow) => flow.carriesOn())))
  over.abort()
  for (const flow of flows) {
    const { sent, received, bytes, result } = await within('the flow ends', flow.ended)
    assert.equal(result.code, 0, result.stderr)
    assert.equal(result.stderr, '')
    assert.equal(received, sent)
    assert.ok(bytes > CHUNK.length, `${bytes}`)
  }
  assert.doesNotMatch(edge.logs(), /certificate_renewal_failed/)
})

/** Sends a chunk whenever the one before is back, until it is told to end. */
function pump(home: string, host: string, over: AbortSignal) {
  const client = spawnPostern(['client', 'tls', '--host', host], { home, collectStdout: false })
  const [sent, received] = [createHash('sha256'), createHash('sha256')]
  let bytes = 0
  let missing = 0
  const send = () => {
    sent.update(CHUNK)
    missing += CHUNK.length
    client.child.stdin.write(CHUNK)
  }
  client.child.stdout.on('data', (chunk: Buffer) => {
    received.update(chunk)
    bytes += chunk.length
    missing -= chunk.length
    if (missing > 0) return
    if (over.aborted) client.child.stdin.end()
    else send()
  })
  send()
  return {
    carriesOn: () => once(client.child.stdout, 'data'),
    ended: client.ended.then((result) => ({
      result,
      bytes,
      sent: sent.digest('hex'),
      received: received.digest('hex'),
    })),
  }
}
