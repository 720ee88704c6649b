import assert from 'node:assert/strict'
import { mkdirSync, symlinkSync, writeFileSync } from 'node:fs'
import { rename } from 'node:fs/promises'
import path from 'node:path'
import { test } from 'node:test'
import { createAuthorities } from '../packages/edge/src/ca/authorities.ts'
import { issueEdgeCertificate } from '../packages/edge/src/ca/issue-edge.ts'
import { connectService } from './support/connect-service.ts'
import { makePerson } from './support/dev-browser.ts'
import { startEdge } from './support/edge-process.ts'
import { METRICS_ON, readMetrics } from './support/metrics.ts'
import { openPump } from './support/pump.ts'
import { shownCertificate } from './support/shown-certificate.ts'
import { startEcho } from './support/tcp-services.ts'
import { makeTempFolder } from './support/temp-folder.ts'
import { until } from './support/until.ts'

const FAILED = 'postern_server_certificate_failed_total{code="TLS_FILES_INVALID"}'

test('a certificate that another program renews is taken without a restart, a bad one is not', async () => {
  await using cleanup = new AsyncDisposableStack()
  const folder = makeTempFolder('tls')
  const { edge: authority } = await createAuthorities(path.join(folder, 'company'), Date.now())
  const caFile = authority.certificateFile
  let versions = 0
  /** As certbot does it: a new folder, and one link that is turned to it. */
  const install = async (pair: { cert: string; key: string }) => {
    versions += 1
    writeFolder(path.join(folder, `v${versions}`), pair)
    symlinkSync(`v${versions}`, path.join(folder, 'next'))
    await rename(path.join(folder, 'next'), path.join(folder, 'live'))
  }
  const issue = async (domain = 'edge.localhost') => {
    const { certificate, key, serial } = await issueEdgeCertificate(authority, domain, Date.now())
    return { cert: certificate, key, serial }
  }

  const first = await issue()
  await install(first)
  const files = {
    certificate_file: path.join(folder, 'live', 'cert.pem'),
    key_file: path.join(folder, 'live', 'key.pem'),
  }
  const edge = cleanup.use(await startEdge({ config: { tls: files, metrics: METRICS_ON } }))
  const shows = async ({ serial }: { serial: string }) =>
    (await shownCertificate(edge, 'edge.localhost', caFile)).serialNumber.toLowerCase() === serial
  assert.ok(await shows(first))
  const home = await makePerson({ origin: edge.origin, caFile }, 'operator@mycorp.com')
  const echo = cleanup.use(await startEcho())
  const service = cleanup.use(await connectService({ home, port: echo.port }))
  const flow = cleanup.use(openPump(home, service.host))
  await flow.open()

  const second = await issue()
  await install(second)
  await until('the new certificate is shown', () => shows(second))
  await flow.open()

  await install({ cert: second.cert, key: first.key })
  await until('the mismatch is told', async () => (await readMetrics(edge)).get(FAILED) === 1)
  assert.match(
    edge.logs(),
    /"TLS_FILES_INVALID".*does not belong to the key.*"edge\.certificate_renewal_failed"/,
  )
  await install(await issue('other.example.com'))
  await until('the wrong name is told', async () => (await readMetrics(edge)).get(FAILED) === 2)
  assert.ok(await shows(second))

  const third = await issue()
  await install(third)
  await until('the good one is shown', () => shows(third))
  const metrics = await readMetrics(edge)
  assert.equal(metrics.get('postern_server_certificate_renewed_total'), 2)
  const daysLeft = metrics.get('postern_server_certificate_days_left')!
  assert.ok(daysLeft > 29 && daysLeft <= 30, `${daysLeft}`)
  await flow.open() // never noticed
  assert.equal(flow.client.stderr, '')
})

function writeFolder(folder: string, { cert, key }: { cert: string; key: string }): void {
  mkdirSync(folder)
  writeFileSync(path.join(folder, 'cert.pem'), cert)
  writeFileSync(path.join(folder, 'key.pem'), key, { mode: 0o600 })
}
