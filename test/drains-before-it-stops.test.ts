import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { EventEmitter, once } from 'node:events'
import { test } from 'node:test'
import type { Program } from '../demo/program.ts'
import { connectService } from './support/connect-service.ts'
import { makePerson } from './support/dev-browser.ts'
import { startEdge } from './support/edge-process.ts'
import { runPostern, spawnPostern } from './support/postern.ts'
import { patternChunks, patternHash, startEcho } from './support/tcp-services.ts'
import { within } from './support/until.ts'

const FLOWS = 20
const FLOW_BYTES = 8 * 1024 * 1024
const CHUNKS = [...patternChunks(FLOW_BYTES)]
const HALF = CHUNKS.length / 2
/** For twenty processes on a machine that has other things to do. */
const PATIENCE_MS = 120_000

/** One `postern client tls` to an echo service, sent by halves. */
class Transfer implements AsyncDisposable {
  readonly client: Program
  readonly #hash = createHash('sha256')
  readonly #arrivals = new EventEmitter()
  #received = 0

  constructor(home: string, args: readonly string[]) {
    this.client = spawnPostern(args, { home, collectStdout: false })
    this.client.child.stdout.on('data', (bytes: Buffer) => {
      this.#hash.update(bytes)
      this.#received += bytes.length
      this.#arrivals.emit('bytes')
    })
  }

  /** Resolves when the first half has come back: the flow is in the middle then. */
  async sendFirstHalf(): Promise<void> {
    await this.#write(CHUNKS.slice(0, HALF))
    while (this.#received < FLOW_BYTES / 2) await once(this.#arrivals, 'bytes')
  }

  /** @returns what became of the client, and the hash of everything it gave */
  async sendRest() {
    await this.#write(CHUNKS.slice(HALF))
    this.client.child.stdin.end()
    const { code, stderr } = await this.client.ended
    return { code, stderr, bytes: this.#received, hash: this.#hash.digest('hex') }
  }

  async #write(chunks: readonly Buffer[]): Promise<void> {
    const { stdin } = this.client.child
    for (const chunk of chunks) if (!stdin.write(chunk)) await once(stdin, 'drain')
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.client[Symbol.asyncDispose]()
  }
}

/** An edge with `count` flows in the middle of their transfer. */
async function startTransfers(drain: string, count: number) {
  await using opened = new AsyncDisposableStack()
  const service = opened.use(await startEcho())
  const edge = opened.use(await startEdge({ args: ['--drain', drain] }))
  const home = await makePerson(edge, 'operator@mycorp.com')
  const connected = opened.use(await connectService({ home, port: service.port }))
  const args = ['client', 'tls', '--host', connected.host]
  assert.equal((await runPostern(args, { home })).code, 0) // has the certificate ready
  const transfers = Array.from({ length: count }, () => opened.use(new Transfer(home, args)))
  const halves = Promise.all(transfers.map((transfer) => transfer.sendFirstHalf()))
  await within('all flows are in the middle', halves, PATIENCE_MS)
  const kept = opened.move()
  return { edge, home, args, service, connected, transfers, [Symbol.asyncDispose]: () => kept.disposeAsync() }
}

test('SIGTERM in the middle of 20 flows: all finish, new ones are told why not, exit 0', async () => {
  await using way = await startTransfers('5m', FLOWS)
  way.edge.program.signal('SIGTERM')
  await way.connected.event('disconnected', ({ code }) => code === 'EDGE_STOPPING')

  const refused = await runPostern(way.args, { home: way.home })
  assert.equal(refused.code, 6)
  assert.match(refused.stderr, /EDGE_STOPPING/)
  assert.equal(refused.stdout, '')

  const rest = Promise.all(way.transfers.map((transfer) => transfer.sendRest()))
  for (const { code, stderr, bytes, hash } of await within('all flows finish', rest, PATIENCE_MS)) {
    assert.equal(code, 0, stderr)
    assert.equal(bytes, FLOW_BYTES)
    assert.equal(hash, patternHash(FLOW_BYTES))
  }
  const { code } = await within('the edge stops', way.edge.program.ended)
  assert.equal(code, 0, way.edge.logs())
  assert.match(way.edge.logs(), /"edge\.stopped".*"drained":true|"drained":true.*"edge\.stopped"/)
})

test('flows that outlast the deadline end with a reason, exit 1', async () => {
  await using way = await startTransfers('1s', 5)
  way.edge.program.signal('SIGTERM')
  for (const { client } of way.transfers) {
    const { code, stderr } = await within('the client ends', client.ended)
    assert.equal(code, 6)
    assert.match(stderr, /EDGE_STOPPING/)
  }
  const { code } = await within('the edge stops', way.edge.program.ended)
  assert.equal(code, 1, way.edge.logs())
  const flows = way.service.connections.slice(1) // after the one that got the certificate
  for (const { ended } of flows) assert.equal(await within('the service sees it', ended), 'reset')
})
