import assert from 'node:assert/strict'
import { once } from 'node:events'
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net'
import { describe, test } from 'node:test'
import { type ConnectedService, connectService } from './support/connect-service.ts'
import { makePerson } from './support/dev-browser.ts'
import { type EdgeProcess, startEdge } from './support/edge-process.ts'
import { runPostern, spawnPostern } from './support/postern.ts'
import { openPump } from './support/pump.ts'
import { startEcho } from './support/tcp-services.ts'
import { within } from './support/until.ts'

const clientArgs = (host: string) => ['client', 'tls', '--host', host]

/** A client that pumps. */
function pump(home: string, host: string) {
  const opened = openPump(home, host)
  return { client: opened.client, flowing: opened.start() }
}

describe('an edge that is restarted under 10 idle connectors and 5 pumping clients', () => {
  const restarts: [how: string, signal: NodeJS.Signals, code: number | null, reason: RegExp][] = [
    ['kill -9', 'SIGKILL', null, /FLOW_CUT/],
    ['SIGTERM', 'SIGTERM', 1, /EDGE_STOPPING/],
  ]
  for (const [how, signal, exitCode, reason] of restarts) {
    test(`${how}: connectors come back by themselves, not in lockstep, and clients end with a reason`, async () => {
      await using opened = new AsyncDisposableStack()
      const service = opened.use(await startEcho())
      const first = opened.use(await startEdge({ keepsPort: true, args: ['--drain', '1s'] }))
      const home = await makePerson(first, 'operator@mycorp.com')
      const busy = opened.use(await connectService({ home, port: service.port, name: 'busy' }))
      const idle = await connectMany(opened, home, service.port)
      assert.equal((await runPostern(clientArgs(busy.host), { home })).code, 0) // has the certificate ready
      const pumps = Array.from({ length: 5 }, () => pump(home, busy.host))
      for (const { client } of pumps) opened.use(client)
      await within('all clients are pumping', Promise.all(pumps.map(({ flowing }) => flowing)), 60_000)

      first.program.signal(signal)
      for (const { client } of pumps) {
        const { code, stderr } = await within('the client ends', client.ended)
        assert.equal(code, 6)
        assert.match(stderr, reason)
      }
      assert.equal((await within('the edge ends', first.program.ended)).code, exitCode)
      opened.use(await startAgain(first))
      const connectors = [busy, ...idle]
      await Promise.all(connectors.map((connector) => connector.event('reconnected')))
      assertNoLockstep(connectors)
      for (const { host } of [busy, idle[0]!]) {
        const answer = await runPostern(clientArgs(host), { home, stdin: 'hello' })
        assert.equal(answer.stdout, 'hello', answer.stderr)
      }
    })
  }

  async function connectMany(
    opened: AsyncDisposableStack,
    home: string,
    port: number,
  ): Promise<ConnectedService[]> {
    const names = Array.from({ length: 10 }, (_, index) => `idle ${index}`)
    return Promise.all(names.map(async (name) => opened.use(await connectService({ home, port, name }))))
  }

  /** With the same keys, store and port. */
  function startAgain({ dataDir, port }: EdgeProcess): Promise<EdgeProcess> {
    return startEdge({ dataDir, port })
  }

  /** All heard of it in one moment: the first wait of each is drawn by lot. */
  function assertNoLockstep(connectors: readonly ConnectedService[]): void {
    const waits = connectors.map(
      (connector) => connector.events().find(({ event }) => event === 'disconnected')!.retryInMs,
    )
    assert.ok(new Set(waits).size >= 6, `first waits: ${waits.join(', ')}`)
  }
})

test('kill -9 of one of two connectors: its flows end, the next one goes through the other', async () => {
  await using service = await startEcho()
  await using edge = await startEdge()
  const home = await makePerson(edge, 'operator@mycorp.com')
  await using one = await connectService({ home, port: service.port })
  await using two = await connectService({ home, port: service.port })
  assert.equal(one.host, two.host)
  assert.equal((await runPostern(clientArgs(one.host), { home, stdin: 'hello' })).stdout, 'hello')
  const openedAt = (connector: ConnectedService) =>
    connector.events().filter(({ event }) => event === 'flow.opened').length
  const before = new Map([one, two].map((connector) => [connector, openedAt(connector)]))
  const lives = (connector: ConnectedService) =>
    connector.event('flow.opened', () => openedAt(connector) > before.get(connector)!)

  // the least busy one is chosen: two flows are on two connectors
  const first = pump(home, one.host)
  await using _first = first.client
  await within('a flow', first.flowing)
  const second = pump(home, one.host)
  await using _second = second.client
  await within('another flow', second.flowing)
  await Promise.all([lives(one), lives(two)])

  await one.kill9()
  const ended = await within(
    'a client ends',
    Promise.race([
      first.client.ended.then((result) => ({ result, other: second })),
      second.client.ended.then((result) => ({ result, other: first })),
    ]),
  )
  assert.equal(ended.result.code, 6)
  assert.match(ended.result.stderr, /FLOW_CUT/)
  const next = spawnPostern(clientArgs(one.host), { home, stdin: 'hello' })
  const { code, stdout, stderr } = await within('the next flow', next.ended)
  assert.equal(code, 0, stderr)
  assert.equal(stdout, 'hello')
  assert.ok(ended.other.client.isRunning, 'the flow of the other connector goes on')
  await within('and it moves', once(ended.other.client.child.stdout, 'data'))
})

test('a target that is down, then accepts and resets, then is good: ten successes in a row', async () => {
  let serve: (socket: Socket) => void = (socket) => socket.resetAndDestroy()
  const server: Server = createServer({ allowHalfOpen: true }, (socket) => {
    socket.on('error', () => {})
    serve(socket)
  })
  using _server = { [Symbol.dispose]: () => void server.close() } // also when an assertion fails
  const listen = (port: number) => once(server.listen(port, '127.0.0.1'), 'listening')
  const close = () => once(server.close(), 'close')
  await listen(0)
  const { port } = server.address() as AddressInfo
  await close()

  await using edge = await startEdge()
  const home = await makePerson(edge, 'operator@mycorp.com')
  await using connected = await connectService({ home, port })
  const reach = () => runPostern(clientArgs(connected.host), { home, stdin: 'hello' })
  for (let attempt = 0; attempt < 3; attempt++) {
    const { code, stdout, stderr } = await reach()
    assert.equal(code, 6)
    assert.match(stderr, /SERVICE_REFUSED/)
    assert.equal(stdout, '')
  }
  await listen(port)
  for (let attempt = 0; attempt < 3; attempt++) {
    const { code, stdout, stderr } = await reach()
    assert.equal(code, 6)
    assert.match(stderr, /FLOW_CUT|SERVICE_REFUSED/) // the reset may come before or after the connect is noticed
    assert.equal(stdout, '')
  }
  serve = (socket) => void socket.pipe(socket)
  for (let attempt = 0; attempt < 10; attempt++) {
    const { code, stdout, stderr } = await reach()
    assert.equal(code, 0, stderr)
    assert.equal(stdout, 'hello')
  }
})
