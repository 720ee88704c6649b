import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { X509Certificate } from 'node:crypto'
import { cpSync, existsSync, globSync, readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { after, before, test } from 'node:test'
import { findFreePort } from '../demo/free-port.ts'
import { newDatabase } from '../packages/edge/test/postgres.ts'
import { type ConnectedService, connectService } from './support/connect-service.ts'
import { makePerson } from './support/dev-browser.ts'
import { type EdgeProcess, startEdge } from './support/edge-process.ts'
import type { EventLine } from './support/event-lines.ts'
import { HeldFlow } from './support/held-flow.ts'
import { runPostern } from './support/postern.ts'
import { runPosternEdge } from './support/postern-edge.ts'
import { startEcho, type TcpService } from './support/tcp-services.ts'
import { makeTempFolder } from './support/temp-folder.ts'
import { clientCertificateOf, type KeyAndCertificate } from './support/tls-peer.ts'
import { until, within } from './support/until.ts'
import { startUpstreamProvider } from './support/upstream-provider.ts'

/** New CAs take over while people work: nobody notices, and in the end the old ones are nobody's. */

const FLOWS = 5
const BLOCK = 'postern carries every byte. '.repeat(3_000)

/** Connectors renew within seconds. */
const CONFIG = { certificates: { connector_ttl: '40s' } }

let edge: EdgeProcess
let echo: TcpService
let operator: string
let service: ConnectedService
const open = new AsyncDisposableStack()

before(async () => {
  edge = open.use(await startEdge({ config: CONFIG, keepsPort: true }))
  echo = open.use(await startEcho())
  operator = await makePerson(edge, 'operator@mycorp.com')
  service = open.use(await connectService({ home: operator, port: echo.port }))
})
after(() => open.disposeAsync())

const ca = (...args: string[]) => runPosternEdge(edge, ['ca', ...args])

interface Row {
  kind: string
  name: string
  state: string
  trustedUntil: number | null
  fingerprint: string | null
}

async function statesOf(kind: string): Promise<Row[]> {
  const { stdout, stderr } = await ca('show', '--json')
  assert.notEqual(stdout, '', stderr)
  return JSON.parse(stdout).authorities.filter((row: Row) => row.kind === kind)
}

/** A certificate as whoever signs now issues it. */
async function obtain(email: string, at = edge, { host, label } = service): Promise<KeyAndCertificate> {
  const home = await makePerson(at, email)
  const { code, stderr } = await runPostern(['client', 'tls', '--host', host], { home, stdin: '' })
  assert.equal(code, 0, stderr)
  return clientCertificateOf(home, label)
}

const issuerOf = (certificate: string) => new X509Certificate(certificate).issuer

async function reaches(identity: KeyAndCertificate): Promise<void> {
  using flow = new HeldFlow(edge, service.host, identity)
  await within('an echo', flow.echo('hello'))
}

/** What every connector process of this operator shows. */
function certificatesOfConnectors(home = operator): string[] {
  return globSync(path.join(home, 'edges/**/certificate.json')).map(
    (file) => JSON.parse(readFileSync(file, 'utf8')).certificatePem,
  )
}

/** Sends block after block, and looks at every byte that comes back. */
class Worker implements Disposable {
  readonly #flow: HeldFlow
  readonly #over: Promise<void>
  #isFinishing = false
  rounds = 0

  constructor(identity: KeyAndCertificate, number: number) {
    this.#flow = new HeldFlow(edge, service.host, identity)
    this.#over = this.#work(`${number} ${BLOCK}`)
    this.#over.catch(() => {}) // told by finish
  }

  async #work(block: string): Promise<void> {
    while (!this.#isFinishing) {
      await this.#flow.echo(`${this.rounds} ${block}`)
      this.rounds++
    }
  }

  /** A whole block has gone there and back since. */
  async goesOn(): Promise<void> {
    const before = this.rounds
    await Promise.race([until('another block', () => this.rounds > before + 1), this.#over])
    assert.ok(this.rounds > before)
  }

  async finish(): Promise<void> {
    this.#isFinishing = true
    await within('the last block', this.#over)
  }

  [Symbol.dispose](): void {
    this.#isFinishing = true
    this.#flow[Symbol.dispose]()
  }
}

test('nobody notices that new CAs take over; what the old ones signed counts until the overlap ends', async () => {
  const old = await obtain('ann@mycorp.com')
  using workers = new DisposableStack()
  const working = Array.from({ length: FLOWS }, (_, number) => workers.use(new Worker(old, number)))
  await Promise.all(working.map((worker) => worker.goesOn()))
  assert.deepEqual(
    (await statesOf('client')).map(({ name, state }) => [name, state]),
    [['client-ca', 'signs']],
  )

  const rotated = await ca('rotate')
  assert.equal(rotated.code, 0, rotated.stderr)
  assert.match(rotated.stderr, /those of ssh stay as they are/)
  await until('the edge knows', () => edge.logs().includes('"ca.changed"'))
  await Promise.all(working.map((worker) => worker.goesOn()))
  const [before, now] = await statesOf('client')
  assert.deepEqual([before?.state, now?.state], ['trusted', 'signs'])
  assert.ok(before!.trustedUntil! > Date.now() + 29 * 86_400_000)

  // new logins get certificates of the new CA; those of the old one open flows as before
  const fresh = await obtain('bob@mycorp.com')
  assert.notEqual(issuerOf(fresh.cert), issuerOf(old.cert))
  await reaches(fresh)
  await reaches(old)

  // both have their lists, and OpenSSL believes both
  const folder = makeTempFolder('rotation')
  const file = (name: string, content: string) => {
    writeFileSync(path.join(folder, name), content)
    return path.join(folder, name)
  }
  const bundle = file('ca.pem', (await ca('export', '--kind', 'client')).stdout)
  const at = ['--cacert', edge.caFile, '--connect-to', `${edge.domain}::127.0.0.1:${edge.port}`]
  const crl = spawnSync('curl', ['-sS', '--fail', ...at, `${edge.origin}/v1/crl/client.pem`], {
    encoding: 'utf8',
  })
  assert.equal(crl.stdout.match(/BEGIN X509 CRL/g)?.length, 2, crl.stderr)
  for (const { cert } of [old, fresh]) {
    const args = ['-crl_check', '-CAfile', bundle, '-CRLfile', file('crl.pem', crl.stdout)]
    const verified = spawnSync('openssl', ['verify', ...args, file('leaf.pem', cert)], { encoding: 'utf8' })
    assert.equal(verified.status, 0, verified.stderr)
  }

  // one rotation after the other
  const twice = await ca('rotate', '--kind', 'client')
  assert.equal(twice.code, 1)
  assert.match(twice.stderr, /\(CA_ROTATING\)/)

  // one that starts now, and again, is believed; the one that runs follows with its next renewal
  const other = { home: operator, port: echo.port, name: 'other' }
  const first = await connectService(other)
  await first.kill9()
  await using again = await connectService(other)
  const theirs = await runPostern(['client', 'tls', '--host', again.host], { home: operator, stdin: 'hello' })
  assert.equal(theirs.stdout, 'hello', theirs.stderr)
  const connectorCas = (await statesOf('connector')).map(({ name }) =>
    issuerOf(readFileSync(path.join(edge.dataDir, 'ca', `${name}.pem`), 'utf8')),
  )
  assert.equal(new Set(connectorCas).size, 2)
  assert.ok(certificatesOfConnectors().length > 0)
  await until('the connector that runs has a certificate of the new CA', () =>
    certificatesOfConnectors().every((pem) => issuerOf(pem) === connectorCas[1]),
  )
  // the old ones are dropped: for what is new; who works, works on
  const ended = await ca('rotate', '--unsafe-end-overlap')
  assert.equal(ended.code, 0, ended.stderr)
  await until('the edge knows', () => edge.logs().match(/"ca.changed"/g)?.length === 2)
  await assert.rejects(within('a refusal', reaches(old)))
  await reaches(fresh)
  assert.deepEqual(
    (await statesOf('client')).map(({ state }) => state),
    ['retired', 'signs'],
  )
  await reaches(await obtain('carl@mycorp.com'))
  await Promise.all(working.map((worker) => worker.goesOn()))
  await Promise.all(working.map((worker) => worker.finish()))

  // the next rotation takes its files away
  const next = await ca('rotate', '--kind', 'client', '--signs-in', '1h')
  assert.equal(next.code, 0, next.stderr)
  assert.ok(!existsSync(path.join(edge.dataDir, 'ca', 'client-ca.key')))
  assert.deepEqual(
    (await statesOf('client')).map(({ state }) => state),
    ['signs', 'next'],
  )
  await until('the edge knows', () => edge.logs().match(/"ca.changed"/g)?.length === 3)
  await reaches(fresh)

  // and a restart finds all of it as it was
  await edge.stop()
  edge = open.use(await startEdge({ dataDir: edge.dataDir, port: edge.port, config: CONFIG }))
  await until('the connector is back', () => reaches(fresh).then(() => true))
})

const sayRefused = ({ code }: EventLine) => code === 'CERTIFICATE_REFUSED'

test('a connector that has slept through the overlap renews at once, hours before its time', async () => {
  await using own = await startEdge({ keepsPort: true })
  const home = await makePerson(own, 'operator@mycorp.com')
  await using sleeper = await connectService({ home, port: echo.port })
  for (const last of [[], ['--unsafe-end-overlap']]) {
    const { code, stderr } = await runPosternEdge(own, ['ca', 'rotate', '--kind', 'connector', ...last])
    assert.equal(code, 0, stderr)
  }
  await own.stop()
  await using again = await startEdge({ dataDir: own.dataDir, port: own.port })
  const told = await sleeper.event('disconnected', sayRefused)
  assert.match(String(told.message), /closed the connection without a word/)
  await sleeper.event('reconnected')
  const reached = await runPostern(['client', 'tls', '--host', sleeper.host], { home, stdin: 'hello' })
  assert.equal(reached.stdout, 'hello', reached.stderr)
  const [shown] = certificatesOfConnectors(home)
  assert.notEqual(
    issuerOf(shown!),
    issuerOf(readFileSync(path.join(again.dataDir, 'ca/connector-ca.pem'), 'utf8')),
  )
})

test('a connector that is attached when its CA is taken out of use goes on serving', async () => {
  await using own = await startEdge()
  const home = await makePerson(own, 'operator@mycorp.com')
  await using attached = await connectService({ home, port: echo.port })
  for (const [number, last] of [[], ['--unsafe-end-overlap']].entries()) {
    const { code, stderr } = await runPosternEdge(own, ['ca', 'rotate', '--kind', 'connector', ...last])
    assert.equal(code, 0, stderr)
    // two within a second are one to it
    await until('the edge knows', () => own.logs().match(/"ca.changed"/g)?.length === number + 1)
  }
  // its warm connections are used up by and by, and new ones are refused
  const say = () => runPostern(['client', 'tls', '--host', attached.host], { home, stdin: 'hello' })
  await until('it has a certificate of the new CA', async () => {
    await say()
    return attached.events().some(({ event }) => event === 'renewed')
  })
  await until('it serves', async () => (await say()).stdout === 'hello')
  assert.equal(attached.events().filter(({ event }) => event === 'renewed').length, 1)
  assert.deepEqual(
    attached.events().filter(({ event }) => event === 'disconnected'),
    [],
    'the old attachment served until the new one did',
  )
})

test('an overlap that is too short is refused, and so is a CA that others do not know', async () => {
  const short = await ca('rotate', '--kind', 'connector', '--overlap', '1h')
  assert.equal(short.code, 2)
  assert.match(short.stderr, /connector CA has signed lives longer than the overlap: 12h/)
  const config = JSON.parse(readFileSync(edge.configFile, 'utf8'))
  const shared = path.join(makeTempFolder('shared'), 'edge.yaml')
  writeFileSync(shared, JSON.stringify({ ...config, store: 'postgres://postern@db.mycorp.com/postern' }), {
    mode: 0o600,
  })
  const unasked = await runPosternEdge({ configFile: shared }, ['ca', 'rotate'])
  assert.equal(unasked.code, 2)
  assert.match(unasked.stderr, /need the new keys first/)
})

test('edges that share a store change over at the same time, once they have the files', async () => {
  const config = { store: await newDatabase() }
  const [port, otherPort] = [await findFreePort(), await findFreePort()]
  const people = ['operator@mycorp.com', 'ann@mycorp.com']
  await using provider = await startUpstreamProvider({
    edgeOrigin: `https://edge.localhost:${port}`,
    otherOrigins: [`https://edge.localhost:${otherPort}`],
    accounts: Object.fromEntries(people.map((email) => [email, { sub: email, email, email_verified: true }])),
  })
  const { identity } = provider
  await using first = await startEdge({ port, identity, config })
  const dataDir = makeTempFolder('edge')
  const share = () => cpSync(path.join(first.dataDir, 'ca'), path.join(dataDir, 'ca'), { recursive: true })
  share()
  cpSync(path.join(first.dataDir, 'login-keys.json'), path.join(dataDir, 'login-keys.json'))
  await using second = await startEdge({ dataDir, port: otherPort, identity, config })
  const [atFirst, atSecond] = [
    await makePerson(first, 'operator@mycorp.com'),
    await makePerson(second, 'operator@mycorp.com'),
  ]
  // one service with a connector at each edge
  await using here = await connectService({ home: atFirst, port: echo.port })
  await using there = await connectService({ home: atSecond, port: echo.port })
  assert.equal(here.label, there.label)

  const unasked = await runPosternEdge(first, ['ca', 'rotate', '--kind', 'client'])
  assert.match(unasked.stderr, /need the new keys first/)
  const rotated = await runPosternEdge(first, ['ca', 'rotate', '--kind', 'client', '--signs-in', '15s'])
  assert.equal(rotated.code, 0, rotated.stderr)
  share()
  for (const { logs } of [first, second]) {
    await until('it is believed, and then it signs', () => logs().match(/"ca.changed"/g)?.length === 2)
  }
  const fresh = await obtain('ann@mycorp.com', first, here)
  const names = readFileSync(path.join(dataDir, 'ca/generations.json'), 'utf8').match(/client-ca-[0-9a-f]+/)!
  assert.equal(
    issuerOf(fresh.cert),
    issuerOf(readFileSync(path.join(dataDir, 'ca', `${names[0]}.pem`), 'utf8')),
  )
  for (const at of [first, second]) {
    using flow = new HeldFlow(at, here.host, fresh)
    await within('an echo', flow.echo('hello'))
  }
})
