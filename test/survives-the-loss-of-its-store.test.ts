import assert from 'node:assert/strict'
import path from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { test } from 'node:test'
import { newDatabase, startPostgres } from '../packages/edge/test/postgres.ts'
import { connectService } from './support/connect-service.ts'
import { makePerson } from './support/dev-browser.ts'
import { type EdgeProcess, startEdge } from './support/edge-process.ts'
import { HeldFlow } from './support/held-flow.ts'
import { METRICS_ON, readMetrics } from './support/metrics.ts'
import { requestEdge } from './support/oauth-peer.ts'
import { runPostern } from './support/postern.ts'
import { startEcho } from './support/tcp-services.ts'
import { attempt, clientCertificateOf } from './support/tls-peer.ts'
import { until } from './support/until.ts'

/** A service, somebody who may reach it, and a flow of theirs that goes on while the store is away. */
async function setScene(config: Record<string, unknown>) {
  await using scene = new AsyncDisposableStack()
  const edge = scene.use(await startEdge({ config: { metrics: METRICS_ON, ...config } }))
  const echo = scene.use(await startEcho())
  const home = await makePerson(edge, 'operator@mycorp.com')
  const service = scene.use(await connectService({ home, port: echo.port }))
  const first = await runPostern(['client', 'tls', '--host', service.host], { home, stdin: 'x' })
  assert.equal(first.code, 0, first.stderr)
  const identity = clientCertificateOf(home, service.label)
  const flow = scene.use(new HeldFlow(edge, service.host, identity))
  await flow.echo('before')
  const open = () => attempt(edge, { serverName: service.host, alpn: 'postern/1', identity })
  const kept = scene.move()
  return { edge, home, flow, open, [Symbol.asyncDispose]: () => kept.disposeAsync() }
}

async function waitForLog(edge: EdgeProcess, event: string): Promise<void> {
  await until(`the log says ${event}`, () => edge.logs().includes(`"${event}"`))
}

type Scene = Awaited<ReturnType<typeof setScene>>

async function assertLost({ edge, home, open }: Scene): Promise<void> {
  assert.deepEqual(await open(), { bytes: '', code: 'STORE_LOST' })
  const who = await runPostern(['whoami', '--json'], { home })
  assert.equal(who.code, 6)
  assert.match(who.stderr, /STORE_LOST/)
  assert.equal((await requestEdge(edge, { path: '/readyz' })).status, 503)
  assert.equal((await requestEdge(edge, { path: '/healthz' })).status, 200)
  assert.equal((await readMetrics(edge)).get('postern_store_lost'), 1)
}

async function assertBack({ edge, home, open }: Scene): Promise<void> {
  await waitForLog(edge, 'store.recovered')
  assert.deepEqual(await open(), { bytes: 'hello', code: undefined })
  assert.equal((await runPostern(['whoami', '--json'], { home })).code, 0)
  await until('it is ready', async () => (await requestEdge(edge, { path: '/readyz' })).status === 200)
  assert.equal((await readMetrics(edge)).get('postern_store_lost'), 0)
}

test('PostgreSQL stops and starts again: nothing new, what runs goes on, and then all is as before', async () => {
  await using cluster = await startPostgres()
  await using patient = await setScene({ store: await newDatabase(cluster) })
  await using strict = await setScene({ store: await newDatabase(cluster), on_store_loss: 'refuse_all' })
  await cluster.stop()
  await waitForLog(patient.edge, 'store.lost')
  await assertLost(patient)
  await patient.flow.echo('meanwhile')
  await waitForLog(strict.edge, 'store.lost')
  await assert.rejects(strict.flow.echo('meanwhile'), { code: 'STORE_LOST' })
  await cluster.start()
  await assertBack(patient)
  await patient.flow.echo('afterwards')
  await assertBack(strict)
})

test('another process has the SQLite file locked: live flows pass bytes, until their time is over', async () => {
  await using scene = await setScene({ store: 'sqlite:edge.sqlite', store_loss_grace: '3s' })
  const other = new DatabaseSync(path.join(scene.edge.dataDir, 'edge.sqlite'), { timeout: 10_000 })
  other.exec('begin exclusive')
  try {
    const lost = waitForLog(scene.edge, 'store.lost')
    let isLost = false
    void lost.then(() => {
      isLost = true
    })
    // the edge waits for the lock, and nobody who is being served waits with it
    for (let round = 0; !isLost; round++) {
      const startedAt = performance.now()
      await scene.flow.echo(`round ${round}`)
      assert.ok(performance.now() - startedAt < 4_000, 'a flow stood still while the edge waited')
    }
    await assertLost(scene)
    await waitForLog(scene.edge, 'store.flows_ended')
    await assert.rejects(scene.flow.echo('too late'), { code: 'STORE_LOST' })
  } finally {
    other.exec('rollback')
    other.close()
  }
  await assertBack(scene)
})
