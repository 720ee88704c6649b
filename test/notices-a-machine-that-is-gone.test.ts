import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { setTimeout as pause } from 'node:timers/promises'
import type { Program } from '../demo/program.ts'
import { connectService } from './support/connect-service.ts'
import { makePerson } from './support/dev-browser.ts'
import { type EdgeProcess, startEdge } from './support/edge-process.ts'
import type { EventLine } from './support/event-lines.ts'
import { type FarMachine, startFarMachine } from './support/far-machine.ts'
import { POSTERN, runPostern, spawnPostern } from './support/postern.ts'
import { startEcho } from './support/tcp-services.ts'
import { within } from './support/until.ts'

/** A machine that is gone sends no FIN and no reset. What notices it: the silence of the control connection for
 *  connectors (30 s, looked at every 10 s, then 12 s to come back), TCP keepalive for clients (30 s, then 10 probes a
 *  second apart). */

/** What the documents promise, by the edge's own record: not how long this machine takes to run a test. */
const PROMISED_MS = 60_000
/** Ends what would never come. */
const GENEROUS_MS = 180_000
/** The edge takes a connector that it heard from within 2 seconds for alive. */
const NOT_FRESH_MS = 2_500

const clientArgs = (host: string) => ['client', 'tls', '--host', host]

describe('a machine that is gone without a word', { concurrency: true }, () => {
  test('of a connector: another serves at once, and its flows end with a reason', async () => {
    await using service = await startEcho()
    await using far = startFarMachine()
    await using edge = await startEdgeFor(far)
    const home = await makePerson(edge, 'operator@mycorp.com')
    const { host, connectorId } = await connectFrom(far, home)
    await using idle = await openFlow(home, host)
    await using sending = await openFlow(home, host)

    await far.acknowledged()
    const goneAt = Date.now()
    far.vanish()
    sending.child.stdin.write('into the void') // stays unacknowledged: keepalive is not for this one
    await using next = await connectService({ home, port: service.port })
    assert.equal(next.host, host, 'the label is free for it at once')
    await pause(Math.max(0, goneAt + NOT_FRESH_MS - Date.now()))
    // the last ones would be led to the one that is gone: by then it is the less busy of the two
    await using held = new AsyncDisposableStack()
    for (let flow = 0; flow < 4; flow++) held.use(await openFlow(home, host))
    const ledElsewhereAt = Date.now()

    for (const client of [idle, sending]) {
      const { code, stderr } = await within('the flow ends', client.ended, GENEROUS_MS)
      assert.equal(code, 6)
      assert.match(stderr, /FLOW_CUT/)
    }
    const [lost, ...more] = await audit(home, 'connector.lost')
    assert.deepEqual([lost?.connectorId, more], [connectorId, []])
    assert.ok(
      ledElsewhereAt < lost!.at,
      'the edge had not noticed anything when the flows above went through',
    )
    assert.ok(lost!.at - goneAt < PROMISED_MS, `the connector was lost after ${lost!.at - goneAt} ms`)
    const closed = await audit(home, 'flow.closed')
    assert.deepEqual(
      closed.map((flow) => [flow.connectorId, flow.code]),
      Array(2).fill([connectorId, 'FLOW_CUT']),
    )
    for (const { at } of closed) {
      assert.ok(at - goneAt < PROMISED_MS, `a flow was closed after ${at - goneAt} ms`)
    }
  })

  test('of a client: the flow ends, and the service sees a reset', async () => {
    await using service = await startEcho()
    await using far = startFarMachine()
    await using edge = await startEdgeFor(far)
    const home = await makePerson(edge, 'operator@mycorp.com')
    await using connected = await connectService({ home, port: service.port })
    await using _client = await openFlow(home, connected.host, far)
    const served = await service.connection()

    await far.acknowledged()
    const goneAt = Date.now()
    far.vanish()
    assert.equal(await within('the service hears of it', served.ended, GENEROUS_MS), 'reset')
    assert.equal((await connected.event('flow.closed', isCut, GENEROUS_MS)).error, 'FLOW_CUT')
    const [closed] = await audit(home, 'flow.closed')
    assert.equal(closed?.code, 'FLOW_CUT')
    assert.ok(closed.at - goneAt < PROMISED_MS, `the flow was closed after ${closed.at - goneAt} ms`)
  })
})

/** An edge at this end of the cable to another machine. */
async function startEdgeFor(far: FarMachine): Promise<EdgeProcess> {
  const identity = { dev: true, unsafe_dev_identity: true } // nobody but that machine reaches this address
  const edge = await startEdge({ config: { listen: `${far.address}:0`, identity } })
  await far.reach(edge.port)
  return edge
}

/** A connector on that machine, in front of an echo service that is there too. */
async function connectFrom(far: FarMachine, home: string) {
  const echo = `require('net').createServer({allowHalfOpen:true},s=>s.on('error',()=>{}).pipe(s)).listen(7,'127.0.0.1',()=>console.log('up'))`
  await far.run([process.execPath, '-e', echo], { home }).matches(/up/, GENEROUS_MS)
  const words = ['connect', '--json', '--name', 'db', '--port', '7', '--allowed-email-domains', 'mycorp.com']
  const connector = far.run([process.execPath, POSTERN, ...words], { home })
  const [line] = await connector.matches(/^.*"event":"ready".*$/m, GENEROUS_MS)
  return JSON.parse(line) as { host: string; connectorId: string }
}

/** A client whose flow is open: it has had its first answer. */
async function openFlow(home: string, host: string, far?: FarMachine): Promise<Program> {
  const words = clientArgs(host)
  const client = far
    ? far.run([process.execPath, POSTERN, ...words], { home })
    : spawnPostern(words, { home })
  client.child.stdin.write('hello')
  await client.output(({ stdout }) => stdout.includes('hello') || undefined, GENEROUS_MS)
  return client
}

interface AuditRecord {
  at: number
  connectorId?: string
  code?: string
}

async function audit(home: string, type: string): Promise<AuditRecord[]> {
  const { code, stdout, stderr } = await runPostern(['audit', 'list', '--json', '--type', type], { home })
  assert.equal(code, 0, stderr)
  return stdout
    .split('\n')
    .filter(Boolean)
    .map((line) => JSON.parse(line))
}

function isCut({ error }: EventLine): boolean {
  return error !== undefined
}
