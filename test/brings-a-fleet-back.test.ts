import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type ConnectedService, connectService } from './support/connect-service.ts'
import { makePerson } from './support/dev-browser.ts'
import { startEdge } from './support/edge-process.ts'
import { runPostern } from './support/postern.ts'
import { openPump } from './support/pump.ts'
import { startEcho } from './support/tcp-services.ts'
import { within } from './support/until.ts'

const IDLE = 50
const PUMPING = 20
/** Programs that are started at once: more would only wait for a processor. */
const AT_ONCE = 8
/** Ends what would never come. */
const GENEROUS_MS = 120_000
/** "Within seconds", on a machine with two processors for all of it. */
const BACK_MS = 30_000

test('kill -9 of an edge with 50 idle connectors and 20 pumping clients: all come back, not in lockstep', async () => {
  await using opened = new AsyncDisposableStack()
  const service = opened.use(await startEcho())
  const first = opened.use(await startEdge({ keepsPort: true }))
  const home = await makePerson(first, 'operator@mycorp.com')
  const connect = async (name: string) =>
    opened.use(await connectService({ home, port: service.port, name }, GENEROUS_MS))
  const busy = await connect('busy')
  const idle = await inBatches(IDLE, (index) => connect(`idle ${index}`))
  const reach = (host: string) => runPostern(['client', 'tls', '--host', host], { home, stdin: 'hello' })
  assert.equal((await reach(busy.host)).stdout, 'hello') // has the certificate ready
  const pumps = await inBatches(PUMPING, async () => {
    const pump = opened.use(openPump(home, busy.host))
    await within('a flow is open', pump.open(), GENEROUS_MS)
    return pump
  })
  await within('all clients pump', Promise.all(pumps.map((pump) => pump.start())), GENEROUS_MS)

  const killedAt = Date.now()
  await first.kill9()
  for (const { client } of pumps) {
    const { code, stderr } = await within('the client ends', client.ended, GENEROUS_MS)
    assert.equal(code, 6, stderr)
    assert.match(stderr, /FLOW_CUT/)
  }
  // with the same keys, store and port
  opened.use(await startEdge({ dataDir: first.dataDir, port: first.port }))
  const upAt = Date.now()
  const connectors = [busy, ...idle]
  await Promise.all(connectors.map((connector) => connector.event('reconnected', undefined, GENEROUS_MS)))
  const attachedAt = await attachTimes(home, killedAt)
  assert.equal(attachedAt.size, connectors.length)
  const lastMs = Math.max(...attachedAt.values()) - upAt
  assert.ok(lastMs < BACK_MS, `the last connector was back after ${lastMs} ms`)
  assertNoLockstep(connectors)
  for (const { host } of [busy, idle[0]!, idle.at(-1)!]) {
    const { stdout, stderr } = await reach(host)
    assert.equal(stdout, 'hello', stderr)
  }
})

/** Calls `make` with 0, 1, 2, …, a few at a time. */
async function inBatches<T>(count: number, make: (index: number) => Promise<T>): Promise<T[]> {
  const made: T[] = []
  let next = 0
  const work = async () => {
    while (next < count) made.push(await make(next++))
  }
  await Promise.all(Array.from({ length: AT_ONCE }, work))
  return made
}

/** All heard of the end in one moment: what keeps them apart is the lot that each draws for each of its waits. */
function assertNoLockstep(connectors: readonly ConnectedService[]): void {
  const waitsOf = (connector: ConnectedService) =>
    connector
      .events()
      .filter(({ event }) => event === 'disconnected')
      .map(({ retryInMs }) => Number(retryInMs))
  for (let attempt = 0; ; attempt++) {
    const waits = connectors
      .flatMap((connector) => waitsOf(connector)[attempt] ?? [])
      .toSorted((a, b) => a - b)
    if (waits.length < connectors.length) {
      assert.ok(attempt > 0, 'every connector has noticed')
      return
    }
    const [shortest, longest] = [waits[0]!, waits.at(-1)!]
    assert.ok(longest > 1.5 * shortest, `the waits of attempt ${attempt} are spread: ${waits.join(', ')}`)
    const tenth = (longest - shortest) / 10
    const together = waits.map(
      (wait) => waits.filter((other) => other >= wait && other < wait + tenth).length,
    )
    // a tenth of them is expected in each tenth of the range
    const most = Math.max(...together)
    assert.ok(most <= connectors.length * 0.4, `${most} within ${tenth} ms: ${waits.join(', ')}`)
  }
}

/** When each connector attached first, by the edge's own record. */
async function attachTimes(home: string, since: number): Promise<Map<string, number>> {
  const { code, stdout, stderr } = await runPostern(
    ['audit', 'list', '--json', '--type', 'connector.attached', '--limit', '1000'],
    { home },
  )
  assert.equal(code, 0, stderr)
  const first = new Map<string, number>()
  for (const line of stdout.split('\n').filter(Boolean)) {
    const { at, connectorId } = JSON.parse(line) as { at: number; connectorId: string }
    if (at >= since && !first.has(connectorId)) first.set(connectorId, at)
  }
  return first
}
