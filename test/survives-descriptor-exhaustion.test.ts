import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { readdirSync } from 'node:fs'
import net from 'node:net'
import { test } from 'node:test'
import { connectService } from './support/connect-service.ts'
import { makePerson } from './support/dev-browser.ts'
import { startEdge } from './support/edge-process.ts'
import { HeldFlow } from './support/held-flow.ts'
import { METRICS_ON, readMetrics } from './support/metrics.ts'
import { runPostern } from './support/postern.ts'
import { startEcho } from './support/tcp-services.ts'
import { attempt, clientCertificateOf } from './support/tls-peer.ts'
import { until, within } from './support/until.ts'

/** An edge that may have 256 descriptors, and strangers who take all of them. */

test('flows go on, the accept loop survives, and people come in again', async () => {
  await using edge = await startEdge({ config: { metrics: METRICS_ON, limits: { handshake_timeout: '5s' } } })
  await using echo = await startEcho()
  const home = await makePerson(edge, 'operator@mycorp.com')
  await using service = await connectService({ home, port: echo.port })
  await runPostern(['client', 'tls', '--host', service.host], { home, stdin: 'hello' })
  const identity = clientCertificateOf(home, service.label)
  using flow = new HeldFlow(edge, service.host, identity)
  await flow.echo('before')
  execFileSync('prlimit', ['--pid', String(edge.pid), '--nofile=256:256'])

  const strangers = Array.from({ length: 600 }, () =>
    net
      .connect({ host: '127.0.0.1', port: edge.port })
      .on('error', () => {})
      .resume(),
  )
  await until('the edge has no descriptor left', () => readdirSync(`/proc/${edge.pid}/fd`).length >= 250)
  await within('a flow in the middle of it', flow.echo('meanwhile'))

  // they do not give up: the edge does, after the handshake timeout
  const reached = await until(
    'somebody comes in again',
    async () => {
      const { bytes } = await attempt(edge, { serverName: service.host, alpn: 'postern/1', identity })
      return bytes === 'hello'
    },
    60_000,
  )
  assert.ok(reached)
  for (const stranger of strangers) stranger.destroy()

  const again = await runPostern(['client', 'tls', '--host', service.host], { home, stdin: 'hello again' })
  assert.equal(again.stdout, 'hello again', again.stderr)
  await flow.echo('after')
  await until('every stranger is gone', async () => {
    const now = await readMetrics(edge)
    return now.get('postern_handshakes_pending') === 0 && now.get('process_open_fds')! < 100
  })
  assert.ok(edge.program.isRunning)
})
