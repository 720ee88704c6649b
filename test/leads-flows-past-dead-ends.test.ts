import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { setTimeout as pause } from 'node:timers/promises'
import type { FramedEnd } from '@postern/shared/stream/framed-end'
import { type ConnectedService, connectService } from './support/connect-service.ts'
import { ConnectorPeer, readStoredConnectors } from './support/connector-peer.ts'
import { type DataWire, startEdgeOnDataWire } from './support/data-wire.ts'
import { makePerson } from './support/dev-browser.ts'
import type { EdgeProcess } from './support/edge-process.ts'
import { HeldFlow } from './support/held-flow.ts'
import { METRICS_ON, readMetrics } from './support/metrics.ts'
import { runPostern } from './support/postern.ts'
import { startEcho, type TcpService } from './support/tcp-services.ts'
import { attempt, clientCertificateOf } from './support/tls-peer.ts'
import { until, within } from './support/until.ts'

/** Data connections that look well and lead nowhere: of a connector that says nothing, of one that stands still, and
 *  closed ones. */

const ROUTE_TIMEOUT_MS = 5_000
const CONFIG = { limits: { route_timeout: `${ROUTE_TIMEOUT_MS}ms` }, metrics: METRICS_ON }

let wire: DataWire
let edge: EdgeProcess
let echo: TcpService
let home: string

before(async () => {
  echo = await startEcho()
  wire = await startEdgeOnDataWire(CONFIG)
  edge = wire.edge
  home = await makePerson(edge, 'operator@mycorp.com')
})
after(async () => {
  await wire?.[Symbol.asyncDispose]()
  await echo?.[Symbol.asyncDispose]()
})

const connect = (name: string) => connectService({ home, port: echo.port, name })
const runClient = (host: string) => runPostern(['client', 'tls', '--host', host], { home, stdin: 'hello' })

/** By the command; its certificate is used by the flows of `assertTenSucceed`. */
async function assertReaches({ host }: ConnectedService): Promise<void> {
  const { code, stdout, stderr } = await runClient(host)
  assert.equal(code, 0, stderr)
  assert.equal(stdout, 'hello')
}

/** In this process, because a command takes its time to start: `before` each of them is only just over. */
async function assertTenSucceed({ host, label }: ConnectedService, before = () => {}): Promise<void> {
  const identity = clientCertificateOf(home, label)
  for (let flow = 0; flow < 10; flow++) {
    await untilIdle()
    before()
    const ended = attempt(edge, { serverName: host, alpn: 'postern/1', identity })
    assert.deepEqual(await within('the flow ends', ended), { bytes: 'hello', code: undefined })
  }
}

async function assertUnreachable({ host, label }: ConnectedService): Promise<void> {
  const { code, stdout, stderr } = await runClient(host)
  assert.equal(code, 6, stderr)
  assert.match(stderr, /the connector of .* does not answer \(SERVICE_UNREACHABLE\)/)
  assert.equal(stdout, '')
  assertEndedInTime(await readLastDuration(label))
}

/** How long the last flow of this service lasted that ended so, as the audit log has it. */
async function readLastDuration(label: string): Promise<number> {
  const look = async () => {
    const args = ['audit', 'list', '--json', '--limit', '1000', '--type', 'flow.closed']
    const lines = (await runPostern(args, { home })).stdout.split('\n').filter(Boolean)
    const records = lines.map((line) => JSON.parse(line))
    return records.findLast((record) => record.label === label && record.code === 'SERVICE_UNREACHABLE')
  }
  return (await until('the end of the flow is recorded', look)).durationMs
}

/** Ended by `route_timeout` and by nothing else: five times of it is a machine that has no time for us. */
function assertEndedInTime(durationMs: number): void {
  assert.ok(durationMs >= ROUTE_TIMEOUT_MS - 100 && durationMs < 5 * ROUTE_TIMEOUT_MS, `${durationMs} ms`)
}

const untilIdle = () =>
  until('a data connection waits', async () =>
    (await readMetrics(edge)).get('postern_data_connections{state="idle"}'),
  )

describe('a connector that takes flows and never answers', () => {
  /** Accepts what the edge opens and does with it what `treat` says now. */
  async function startMute({ label }: ConnectedService) {
    await using twin = await connect('mute') // a key of its own for the same service
    assert.equal(twin.label, label)
    assert.equal(await twin.stop(), 0)
    const { identity } = readStoredConnectors(home, label).at(-1)!
    const peer = await new ConnectorPeer(edge, identity).attached()
    const mute = { peer, opened: 0, treat: (_end: FramedEnd) => {} }
    peer.serve((end) => {
      mute.opened++
      mute.treat(end)
    })
    return mute
  }

  test('its flow ends with SERVICE_UNREACHABLE in time, later ones use a good one; alone: the same end', async () => {
    await using good = await connect('mute')
    await assertReaches(good)
    const mute = await startMute(good)
    using _peer = mute.peer
    await until('both are ready', async () => {
      const metrics = await readMetrics(edge)
      return (
        metrics.get('postern_connectors_attached') === 2 &&
        metrics.get('postern_data_connections{state="idle"}')! >= 2
      )
    })

    // the least busy one is chosen: the good one has a flow
    using work = new HeldFlow(edge, good.host, clientCertificateOf(home, good.label))
    await within('the flow through the good one', work.echo('begun'))
    await assertUnreachable(good)
    assert.equal(mute.opened, 1)
    await assertTenSucceed(good)
    assert.equal(mute.opened, 1, 'nothing more was led to it')
    await within('the other flow goes on', work.echo('still here'))

    assert.equal(await good.stop(), 0)
    await assertUnreachable(good)
    assert.equal(mute.opened, 2, 'the last resort')

    mute.treat = (end) => {
      end.receive({
        chunk: (bytes) => end.write(bytes),
        end: () => end.end(() => {}),
        drain: () => {},
        cut: () => {},
      })
      end.send('ok', { flowId: 'of the peer' })
    }
    await assertReaches(good) // it is not given up
  })
})

describe('a connector that stands still (SIGSTOP): its waiting connections look like any other', () => {
  test('beside a good one, and not heard of for a while: ten flows in a row succeed', async () => {
    await using frozen = await connect('frozen')
    await assertReaches(frozen)
    await using good = await connect('frozen')
    assert.equal(good.host, frozen.host)
    frozen.program.signal('SIGSTOP')
    try {
      // whoever was heard of in the last two seconds is not asked whether they live
      await pause(3_000)
      await assertTenSucceed(good)
    } finally {
      frozen.program.signal('SIGCONT')
    }
    await assertTenSucceed(good)
  })

  test('alone: SERVICE_UNREACHABLE in time, and the next flow succeeds once it goes on', async () => {
    await using connected = await connect('alone')
    await assertReaches(connected)
    await untilIdle()
    connected.program.signal('SIGSTOP')
    try {
      await assertUnreachable(connected)
    } finally {
      connected.program.signal('SIGCONT')
    }
    await assertTenSucceed(connected)
  })
})

describe('waiting data connections that are closed on the way', () => {
  for (const how of ['reset', 'fin'] as const) {
    test(`${how}: noticed before anything is sent over one, ten flows in a row succeed`, async () => {
      await using connected = await connect(how)
      await assertReaches(connected)
      const served = echo.connections.length
      await assertTenSucceed(connected, () => wire.cutData(how))
      assert.equal(echo.connections.length, served + 10, 'each flow reached the service once')
      assert.ok(!connected.events().some(({ event }) => event === 'disconnected'))
    })
  }
})
