import assert from 'node:assert/strict'
import { generateKeyPairSync, randomInt } from 'node:crypto'
import { EventEmitter, once } from 'node:events'
import { writeFileSync } from 'node:fs'
import path from 'node:path'
import { test } from 'node:test'
import { setTimeout as pause } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { formatExportLine } from '@postern/shared/audit/record'
import { ExportVerifier } from '@postern/shared/audit/verify'
import { createCsr } from '@postern/shared/certs/csr'
import { FramedEnd } from '@postern/shared/stream/framed-end'
import { Program } from '../demo/program.ts'
import { connectService } from './support/connect-service.ts'
import { makePerson } from './support/dev-browser.ts'
import { type EdgeProcess, startEdge } from './support/edge-process.ts'
import { callApi, type PeerSession, requestEdge, signInByHand } from './support/oauth-peer.ts'
import { runPostern } from './support/postern.ts'
import { openStoreReader, type StoreReader } from './support/store-reader.ts'
import { startTcpService, type TcpService } from './support/tcp-services.ts'
import { makeTempFolder } from './support/temp-folder.ts'
import { dial, type KeyAndCertificate } from './support/tls-peer.ts'
import { within } from './support/until.ts'

/** The edge is killed at random moments under load. Whatever somebody has been told, or has seen happen, stands in
 *  its store afterwards.
 *
 *  SIGKILL takes the process and leaves the machine: what the kernel has been given is still written. So this finds
 *  an edge that acts before it has handed its record over, or leaves its tables half changed; a commit that is not
 *  yet on the disk it cannot find. That needs `synchronous = full` on SQLite and `synchronous_commit = on` on
 *  PostgreSQL, which packages/edge/src/store/open.test.ts asks of the connections that the edge opens. */

const POSTERN_EDGE = fileURLToPath(new URL('../packages/edge/bin/postern-edge.js', import.meta.url))
const PATIENCE_MS = 60_000
/** On PostgreSQL a killed edge leaves its last transaction to a server that lives on: a few kills show as much. */
const KILLS = process.env.POSTERN_TEST_STORE === 'postgres' ? 6 : 50
/** What has to have happened since the edge was ready before it is killed: so many of one kind, drawn by lot. */
const MOMENTS: readonly [kind: Deed, atMost: number][] = [
  ['flow', 12],
  ['echo', 60],
  ['certificate', 5],
  ['login', 2],
  ['service', 4],
]
const SHORT_FLOWS_AT_ONCE = 3
const PUMPS = 3

const ALLOW = { emailDomains: ['mycorp.com'], emailAddresses: [], anyAuthenticated: false }

type Deed = 'flow' | 'echo' | 'certificate' | 'login' | 'service'

/** What people hold in their hands, because the edge has answered or the service has seen it. */
class Known {
  /** Addresses of clients whose bytes the service has seen. Each flow has one of its own, and sends it. */
  readonly served: Set<string> = new Set()
  readonly certificates: Set<string> = new Set()
  readonly services: Set<string> = new Set()
  readonly logins: PeerSession[] = []
  readonly deeds: EventEmitter = new EventEmitter().setMaxListeners(0)
  #next = 0

  /** A number that nobody else has. */
  next(): number {
    return ++this.#next
  }
}

/** An echo service that notes who sends it something. */
function startWitness(known: Known): Promise<TcpService> {
  return startTcpService(({ socket }) => {
    let head = ''
    let isKnown = false
    socket.on('data', (chunk: Buffer) => {
      if (isKnown) return
      head += chunk.toString('latin1')
      if (!head.includes('\n')) return
      isKnown = true
      known.served.add(head.slice(0, head.indexOf('\n')))
      known.deeds.emit('flow')
    })
    socket.pipe(socket)
  })
}

/** A flow from an address of its own, which is also what it sends first, without waiting for an answer. */
class TaggedFlow {
  readonly #end: FramedEnd
  readonly #over = Promise.withResolvers<never>()
  #heard = ''
  #onHeard: () => void = () => {}

  constructor(edge: EdgeProcess, host: string, identity: KeyAndCertificate, number: number) {
    const address = `127.${100 + ((number >> 16) & 63)}.${(number >> 8) & 255}.${number & 255}`
    const socket = dial(edge, { serverName: host, alpn: 'postern/1', identity, localAddress: address })
    socket.on('error', (error) => this.#over.reject(error))
    this.#over.promise.catch(() => {})
    this.#end = new FramedEnd(socket)
    this.#end.receive({
      chunk: (chunk) => {
        this.#heard += chunk
        this.#onHeard()
      },
      end: () => this.#over.reject(new Error('the flow ended')),
      drain: () => {},
      cut: (error) => this.#over.reject(error),
    })
    this.#end.resume()
    this.#end.write(Buffer.from(`${address}\n`))
    this.#sent = `${address}\n`
  }
  #sent: string

  /** Resolves when everything sent so far has come back. */
  async echoed(): Promise<void> {
    const back = new Promise<void>((resolve) => {
      this.#onHeard = () => this.#heard.length >= this.#sent.length && resolve()
      this.#onHeard()
    })
    await Promise.race([back, this.#over.promise])
    assert.equal(this.#heard, this.#sent)
    this.#heard = this.#sent = ''
  }

  async pump(text: string): Promise<void> {
    this.#sent += text
    this.#end.write(Buffer.from(text))
    await this.echoed()
  }

  /** Ends both ways; nothing comes after it. */
  async end(): Promise<void> {
    this.#end.end(() => {})
    await this.#over.promise.catch((error: Error) => assert.match(error.message, /the flow ended/))
  }
}

interface Town {
  known: Known
  host: string
  /** Of an operator. */
  session: PeerSession
  identity: KeyAndCertificate
}

/** Everybody who uses the edge at once, until it is gone. */
class Load implements AsyncDisposable {
  readonly #edge: EdgeProcess
  readonly #town: Town
  readonly #gone = Promise.withResolvers<never>()
  #error: unknown
  #isOver = false
  readonly #people: Promise<void>[]

  constructor(edge: EdgeProcess, town: Town) {
    this.#edge = edge
    this.#town = town
    this.#gone.promise.catch(() => {})
    this.#people = [
      ...Array.from({ length: SHORT_FLOWS_AT_ONCE }, () => this.#repeat(() => this.#useOnce())),
      ...Array.from({ length: PUMPS }, () => this.#repeat(() => this.#pump())),
      this.#repeat(() => this.#getCertificate()),
      this.#repeat(() => this.#logIn()),
      this.#repeat(() => this.#claimService()),
    ]
  }

  /** To be called together with the kill: what fails from now on is no wonder. */
  async stop(): Promise<void> {
    this.#isOver = true
    this.#gone.reject(new Error('the edge was killed'))
    await Promise.all(this.#people)
  }

  /** What failed last while the edge lived. */
  get error(): unknown {
    return this.#error
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.stop()
  }

  async #repeat(step: () => Promise<void>): Promise<void> {
    while (!this.#isOver) {
      try {
        await Promise.race([step(), this.#gone.promise])
      } catch (error) {
        if (this.#isOver) return
        // a connector that has just come has no data connection yet
        this.#error = error
        await Promise.race([pause(20), this.#gone.promise.catch(() => {})])
      }
    }
  }

  #open(): TaggedFlow {
    const { host, identity, known } = this.#town
    return new TaggedFlow(this.#edge, host, identity, known.next())
  }

  async #useOnce(): Promise<void> {
    const flow = this.#open()
    await flow.echoed()
    await flow.end()
  }

  async #pump(): Promise<void> {
    const flow = this.#open()
    for (;;) {
      await flow.pump('x'.repeat(4_096))
      this.#town.known.deeds.emit('echo')
      if (this.#isOver) return
    }
  }

  async #getCertificate(): Promise<void> {
    const { known, session, host } = this.#town
    const { identity, serial } = await issueCertificate(this.#edge, session, host)
    known.certificates.add(serial)
    this.#town.identity = identity // the next flows show it
    known.deeds.emit('certificate')
  }

  async #logIn(): Promise<void> {
    const { known } = this.#town
    known.logins.push(await signInByHand(this.#edge, `person-${known.next()}@mycorp.com`))
    known.deeds.emit('login')
  }

  async #claimService(): Promise<void> {
    const { known, session } = this.#town
    const body = { name: `service ${known.next()}`, type: 'tls', allow: ALLOW }
    const { status, json, text } = await callApi(
      this.#edge,
      session.key,
      session.accessToken,
      '/v1/services',
      body,
    )
    assert.equal(status, 201, text)
    known.services.add(json.service.id)
    known.deeds.emit('service')
  }
}

async function issueCertificate(edge: EdgeProcess, { key, accessToken }: PeerSession, host: string) {
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const body = { host, csr: createCsr(privateKey) }
  const { status, json, text } = await callApi(edge, key, accessToken, '/v1/certificates/client', body)
  assert.equal(status, 201, text)
  const pem = privateKey.export({ type: 'pkcs8', format: 'pem' }) as string
  return { identity: { key: pem, cert: json.certificate as string }, serial: json.serial as string }
}

test(`${KILLS} times kill -9 at a random moment: nothing that was done is missing in the store`, async (t) => {
  const seed = Number(process.env.POSTERN_TEST_SEED ?? randomInt(2 ** 31))
  t.diagnostic(`seed ${seed}`)
  const below = drawFrom(seed)
  const known = new Known()
  await using opened = new AsyncDisposableStack()
  const service = opened.use(await startWitness(known))
  // longer than the test may take on a machine that has other things to do
  const config = { certificates: { session: '12h', ttl: '1h' }, audit: { checkpoint_records: 20 } }
  let edge = opened.use(await startEdge({ keepsPort: true, config }))
  const { dataDir, port } = edge
  const home = await makePerson(edge, 'operator@mycorp.com')
  // a new one after each kill: one that comes back by itself waits longer each time (outlives-restarts.test.ts)
  const connect = async () => opened.use(await connectService({ home, port: service.port }))
  let connector = await connect()
  const { host } = connector
  const session = await signInByHand(edge, 'operator@mycorp.com')
  const first = await issueCertificate(edge, session, host)
  known.certificates.add(first.serial)
  const town: Town = { known, host, session, identity: first.identity }
  await using store = await openStoreReader(edge)
  const chain = new ChainReader(store)

  const startsMs: number[] = []
  for (let round = 0; round < KILLS; round++) {
    await using load = new Load(edge, town)
    const [kind, atMost] = MOMENTS[below(MOMENTS.length)]!
    await waitForDeeds(known, kind, 1 + below(atMost), load)
    await pause(below(15))
    edge.program.signal('SIGKILL')
    await Promise.all([load.stop(), connector.kill9()])
    assert.equal((await edge.program.ended).signal, 'SIGKILL')
    chain.keepCheckpoints(edge)

    if (below(4) === 0) await killWhileItStarts(edge, below(600))
    const startedAt = performance.now()
    edge = opened.use(await startEdge({ dataDir, port, config }))
    startsMs.push(performance.now() - startedAt)
    ;[connector] = await Promise.all([connect(), assertTablesAgree(store, edge, known)])
    await chain.readOn()
  }
  await assertProven(edge, home, chain)
  t.diagnostic(
    `${known.served.size} flows, ${known.certificates.size} certificates, ${known.logins.length} logins, ` +
      `${known.services.size} services; slowest start ${Math.round(Math.max(...startsMs))} ms`,
  )
  assert.ok(Math.max(...startsMs) < 30_000, 'a restart takes seconds')
  assert.ok(known.served.size > KILLS && known.certificates.size > KILLS / 2 && known.logins.length > 0)
})

/** mulberry32: small, fast, the same everywhere. @returns whole numbers from 0 to `limit - 1` */
function drawFrom(seed: number): (limit: number) => number {
  let state = seed | 0
  return (limit) => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return Math.floor((((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32) * limit)
  }
}

async function waitForDeeds(known: Known, kind: Deed, count: number, load: Load): Promise<void> {
  const wanted = async () => {
    for (let seen = 0; seen < count; seen++) await once(known.deeds, kind)
  }
  await within(`${count} of ${kind}`, wanted(), PATIENCE_MS).catch((error) => {
    error.cause = load.error
    throw error
  })
}

/** A start that nobody waits for: also the way up may end anywhere. */
async function killWhileItStarts({ configFile }: EdgeProcess, afterMs: number): Promise<void> {
  const args = [POSTERN_EDGE, 'serve', '--config', configFile]
  await using program = new Program(process.execPath, args, { env: process.env, stdin: '' })
  await Promise.race([pause(afterMs), program.ended])
  assert.ok(program.isRunning, program.logs())
}

/** Follows the chain of the audit log as it grows, and keeps the checkpoints that the edge has told. */
class ChainReader {
  readonly checkpoints: string[] = []
  readonly #store: StoreReader
  readonly #verifier = new ExportVerifier()
  #seq = 0

  constructor(store: StoreReader) {
    this.#store = store
  }

  keepCheckpoints(edge: EdgeProcess): void {
    const told = edge.logs().split('\n')
    this.checkpoints.push(...told.filter((line) => line.includes('"audit.checkpoint"')))
  }

  /** @throws AUDIT_BROKEN what was written since follows not on what was there */
  async readOn(): Promise<void> {
    const columns = 'seq, chain, position, at, type, previous, hash, event'
    const rows = await this.#store.rows(
      `select ${columns} from audit_events where seq > ${this.#seq} order by seq`,
    )
    for (const { seq, position, at, ...rest } of rows) {
      this.#seq = Number(seq)
      const numbers = { seq: this.#seq, position: Number(position), at: Number(at) }
      this.#verifier.add(formatExportLine({ ...rest, ...numbers }))
    }
  }
}

/** The whole log once more, as somebody verifies it who has an export, the key, and what the edge told of checkpoints
 *  before each kill. */
async function assertProven(edge: EdgeProcess, home: string, { checkpoints }: ChainReader): Promise<void> {
  const folder = makeTempFolder('audit')
  const write = (name: string, text: string) => {
    writeFileSync(path.join(folder, name), text)
    return path.join(folder, name)
  }
  const exported = await runPostern(['audit', 'export'], { home })
  assert.equal(exported.code, 0, exported.stderr)
  const args = [POSTERN_EDGE, 'audit', 'key', '--config', edge.configFile]
  const key = await new Program(process.execPath, args, { env: process.env, stdin: '' }).ended
  assert.ok(checkpoints.length > KILLS / 2, `${checkpoints.length} checkpoints`)
  const verified = await runPostern(
    [
      ...['audit', 'verify', write('export.jsonl', exported.stdout), '--key', write('key.txt', key.stdout)],
      ...['--checkpoint', write('kept.jsonl', `${checkpoints.join('\n')}\n`), '--json'],
    ],
    { home: makeTempFolder('home') },
  )
  assert.equal(verified.code, 0, verified.stderr)
  assert.equal(JSON.parse(verified.stdout).chains.length, 1)
}

async function assertTablesAgree(store: StoreReader, edge: EdgeProcess, known: Known): Promise<void> {
  if (store.kind === 'sqlite') {
    assert.deepEqual((await store.rows('pragma integrity_check')).map(Object.values), [['ok']])
    assert.deepEqual(await store.rows('pragma foreign_key_check'), [])
  }
  const events = (await store.rows('select type, event from audit_events')).map(
    ({ event }) => JSON.parse(event) as Record<string, string>,
  )
  const recorded = (type: string, member: string) =>
    new Set(events.filter((event) => event.type === type).map((event) => event[member]!))

  const allowed = new Set(
    events
      .filter(({ type, decision }) => type === 'flow.decided' && decision === 'allow')
      .map(({ clientAddress }) => clientAddress!.slice(0, clientAddress!.lastIndexOf(':'))),
  )
  assertAllIn('a flow that moved a byte has no decision', known.served, allowed)
  await assertCertificates(store, known, recorded('certificate.issued', 'certificateSerial'))
  await assertServices(store, known, recorded('service.created', 'serviceId'))
  await assertSessions(store, edge, known, recorded('login.ok', 'sessionId'))
}

async function assertCertificates(store: StoreReader, known: Known, recorded: Set<string>): Promise<void> {
  const rows = await store.rows(
    'select c.serial, c.kind, s.id as session from certificates c left join sessions s on s.id = c.session_id',
  )
  const stored = new Set(rows.map(({ serial }) => serial as string))
  assertAllIn('a certificate that was handed out is not stored', known.certificates, stored)
  assertAllIn('a certificate that was handed out is not recorded', known.certificates, recorded)
  assertAllIn('a certificate is recorded and not stored', recorded, stored)
  const lost = rows.filter(({ kind, session }) => kind === 'client' && session === null)
  assert.deepEqual(lost, [], 'a client certificate without its session')
}

async function assertServices(store: StoreReader, known: Known, recorded: Set<string>): Promise<void> {
  const rows = await store.rows(
    'select s.id, l.service_id as holder from services s left join labels l on l.label = s.label',
  )
  const stored = new Set(rows.map(({ id }) => id as string))
  assertAllIn('a service that was answered is not stored', known.services, stored)
  assertAllIn('a service that was answered is not recorded', known.services, recorded)
  assertAllIn('a service is recorded and not stored', recorded, stored)
  for (const { id, holder } of rows) assert.equal(holder, id, 'a service does not hold its label')
}

async function assertSessions(
  store: StoreReader,
  edge: EdgeProcess,
  known: Known,
  recorded: Set<string>,
): Promise<void> {
  const rows = await store.rows('select id, grant_id from sessions')
  assertAllIn('a login is recorded and not stored', recorded, new Set(rows.map(({ id }) => id as string)))
  // killed between the two, it has a session that nobody was told of, and nobody has anything of
  const tokens = await store.rows(
    `select grant_id from oidc_records where model in ('AuthorizationCode', 'AccessToken', 'RefreshToken')`,
  )
  const granted = new Set(tokens.map(({ grant_id }) => grant_id))
  for (const { id, grant_id } of rows) {
    assert.ok(
      recorded.has(id) || !granted.has(grant_id),
      'somebody has tokens of a login that is not recorded',
    )
  }
  // everybody who was signed in still is; of each round the last few are asked
  for (const { key, accessToken, refreshToken } of known.logins.slice(-3)) {
    const body = new URLSearchParams({ client_id: 'postern-cli', token: refreshToken })
    assert.equal((await requestEdge(edge, { path: '/oauth/introspect', body })).json?.active, true)
    assert.equal((await callApi(edge, key, accessToken, '/v1/session')).status, 200)
  }
}

function assertAllIn(what: string, expected: ReadonlySet<string>, found: ReadonlySet<string>): void {
  const missing = [...expected].filter((one) => !found.has(one))
  assert.deepEqual(missing, [], what)
}
