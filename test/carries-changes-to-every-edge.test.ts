import assert from 'node:assert/strict'
import { cpSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { after, before, test } from 'node:test'
import { findFreePort } from '../demo/free-port.ts'
import { asAdmin, newDatabase, sharedPostgres } from '../packages/edge/test/postgres.ts'
import { type ConnectedService, connectService } from './support/connect-service.ts'
import { logIn, makePerson } from './support/dev-browser.ts'
import { type EdgeProcess, startEdge } from './support/edge-process.ts'
import { HeldFlow } from './support/held-flow.ts'
import { METRICS_ON, readMetrics } from './support/metrics.ts'
import { runPostern } from './support/postern.ts'
import { openStoreReader, type StoreReader } from './support/store-reader.ts'
import { startEcho, type TcpService } from './support/tcp-services.ts'
import { makeTempFolder } from './support/temp-folder.ts'
import { clientCertificateOf } from './support/tls-peer.ts'
import { until } from './support/until.ts'
import { startUpstreamProvider, type UpstreamProvider } from './support/upstream-provider.ts'

/** Two edges with the same keys on one PostgreSQL. Everything is changed at the first, and lives at the second. */

/** Promised is one second; on a machine that many tests share, five. */
const BOUND_MS = Number(process.env.POSTERN_LIVE_BOUND_MS ?? 5_000)
const OPERATOR = 'operator@mycorp.com'
/** More than one frame, and than one segment. */
const BLOCK = 'postern carries every byte. '.repeat(3_000)

let provider: UpstreamProvider
let first: EdgeProcess
let second: EdgeProcess
let echo: TcpService
let store: StoreReader
let database: string
/** Of the process that only listens for the second edge. */
let listener: number
/** The operator, at each edge. */
let atFirst: string
let atSecond: string
let main: ConnectedService
const open = new AsyncDisposableStack()
/** What must go on, whatever is changed for others. */
const bystanders: HeldFlow[] = []

const account = (email: string) => ({ sub: email, email, email_verified: true })
const PEOPLE = [
  ...[
    'stays',
    'worker',
    'logged-in',
    'logged-out',
    'certified',
    'locked',
    'leaver',
    'cut',
    'denied',
    'renamed',
  ],
  ...['missed', 'deaf'],
].map((name) => `${name}@mycorp.com`)

before(async () => {
  const [port, otherPort] = [await findFreePort(), await findFreePort()]
  provider = open.use(
    await startUpstreamProvider({
      edgeOrigin: `https://edge.localhost:${port}`,
      otherOrigins: [`https://edge.localhost:${otherPort}`],
      accounts: Object.fromEntries([OPERATOR, ...PEOPLE].map((email) => [email, account(email)])),
    }),
  )
  const { identity } = provider
  database = await newDatabase()
  const config = { store: database, metrics: METRICS_ON, on_store_loss: 'refuse_all' }
  first = open.use(await startEdge({ port, identity, config }))
  const [own] = await listeners()
  const dataDir = makeTempFolder('edge')
  cpSync(path.join(first.dataDir, 'ca'), path.join(dataDir, 'ca'), { recursive: true })
  cpSync(path.join(first.dataDir, 'login-keys.json'), path.join(dataDir, 'login-keys.json'))
  second = open.use(await startEdge({ dataDir, port: otherPort, identity, config }))
  listener = await until('the second edge listens', async () =>
    (await listeners()).find((pid) => pid !== own),
  )
  store = open.use(await openStoreReader(first))
  echo = open.use(await startEcho())
  atFirst = await makePerson(first, OPERATOR)
  atSecond = await makePerson(second, OPERATOR)
  main = open.use(await connectService({ home: atFirst, port: echo.port, name: 'main' }))
  open.use(await connectService({ home: atSecond, port: echo.port, name: 'main' }))
  bystanders.push(await flowOf('stays@mycorp.com', main, first), await flowOf('stays@mycorp.com', main))
})
after(() => open.disposeAsync())

async function listeners(): Promise<number[]> {
  const name = new URL(database).pathname.slice(1)
  const rows = await asAdmin(
    await sharedPostgres(),
    `select pid from pg_stat_activity where datname = '${name}' and application_name = 'postern-edge listens'`,
  )
  return rows.map((row) => (row as { pid: number }).pid)
}

const homes = new Map<string, Promise<string>>()

function homeOf(email: string, edge: EdgeProcess): Promise<string> {
  const name = `${email} ${edge.port}`
  const home = homes.get(name) ?? makePerson(edge, email)
  homes.set(name, home)
  return home
}

/** A flow of this person to an echo that has carried bytes. */
async function flowOf(email: string, service: ConnectedService, edge = second): Promise<HeldFlow> {
  const home = await homeOf(email, edge)
  const reached = await runPostern(['client', 'tls', '--host', service.host], { home, stdin: 'x' })
  assert.deepEqual([reached.code, reached.stdout], [0, 'x'], reached.stderr)
  const flow = open.use(new HeldFlow(edge, service.host, clientCertificateOf(home, service.label)))
  await flow.echo('hello')
  return flow
}

/** @returns what the command, at the first edge, printed as JSON */
// biome-ignore lint/suspicious/noExplicitAny: whatever it says
async function postern(args: readonly string[], home = atFirst): Promise<any> {
  const { code, stdout, stderr } = await runPostern(args, { home })
  assert.equal(code, 0, stderr)
  return stdout === '' ? undefined : JSON.parse(stdout)
}

interface ListedFlow {
  id: string
  email: string
  label: string
  sessionId: string
  certificateSerial: string
  connectorId: string
}

/** As the second edge lists it. */
async function listed(email: string, { label }: ConnectedService): Promise<ListedFlow> {
  const { flows } = await postern(['flow', 'list', '--json'], atSecond)
  return flows.find((flow: ListedFlow) => flow.email === email && flow.label === label)
}

/** Makes a change at the first edge while the others carry bytes, and looks at what it did at the second.
 *  @param changedAt when it was written: a query of one number */
async function assertEnds(
  what: string,
  flow: HeldFlow,
  code: string,
  { flowId, change, changedAt }: { flowId: string; change: () => Promise<unknown>; changedAt?: string },
): Promise<void> {
  const carrying = bystanders.map((other) => other.echo(BLOCK))
  await change()
  assert.equal(await endOf(flow), code, what)
  await Promise.all(carrying)
  await Promise.all(bystanders.map((other) => other.echo(what)))
  const closed = await until('the end is recorded', async () => {
    const [row] = await store.rows(
      `select at, event from audit_events where type = 'flow.closed' and flow_id = '${flowId}'`,
    )
    return row
  })
  assert.equal(JSON.parse(closed.event).code, code)
  if (changedAt === undefined) return
  const [row] = await store.rows(changedAt)
  const delay = Number(closed.at) - Number(Object.values(row)[0])
  console.log(`${what}: ${delay} ms`)
  assert.ok(delay <= BOUND_MS, `${what}: ${delay} ms`)
}

function endOf(flow: HeldFlow): Promise<string> {
  return until('the flow ends', () =>
    flow.echo('still there').then(
      () => undefined,
      (error: { code: string }) => error.code,
    ),
  )
}

test('a login, a certificate, a person, a lock, a log-out, a cut and a new address, each ends its flow at the other edge', async () => {
  const [loggedIn, loggedOut, certified, locked, leaver, cut, denied, renamed] = [
    ...['logged-in@mycorp.com', 'logged-out@mycorp.com', 'certified@mycorp.com', 'locked@mycorp.com'],
    ...['leaver@mycorp.com', 'cut@mycorp.com', 'denied@mycorp.com', 'renamed@mycorp.com'],
  ] as [string, string, string, string, string, string, string, string]
  const flows = new Map<string, HeldFlow>()
  const ids = new Map<string, ListedFlow>()
  for (const email of [loggedIn, certified, locked, leaver, cut, denied, renamed]) {
    flows.set(email, await flowOf(email, main))
  }
  // signed in at the first edge only, with a flow at the second
  const away = await homeOf(loggedOut, first)
  await flowOf(loggedOut, main, first)
  const roaming = open.use(new HeldFlow(second, main.host, clientCertificateOf(away, main.label)))
  await roaming.echo('hello')
  flows.set(loggedOut, roaming)
  for (const email of flows.keys()) ids.set(email, await listed(email, main))
  bystanders.push(...flows.values())

  async function ends(
    email: string,
    code: string,
    change: (flow: ListedFlow) => Promise<unknown>,
    changedAt?: (flow: ListedFlow) => string,
  ) {
    const flow = flows.get(email)!
    const about = ids.get(email)!
    bystanders.splice(bystanders.indexOf(flow), 1)
    await assertEnds(email, flow, code, {
      flowId: about.id,
      change: () => change(about),
      ...(changedAt ? { changedAt: changedAt(about) } : {}),
    })
  }
  /** Nothing of it was here, and the other edge has said that it is done. */
  const assertReceipt = (receipt: { flows: number; otherEdges: object }) =>
    assert.deepEqual([receipt.flows, receipt.otherEdges], [0, { told: 1, done: 1 }])
  const endedAt = ({ sessionId }: ListedFlow) => `select ended_at from sessions where id = '${sessionId}'`
  const revokedAt = ({ certificateSerial }: ListedFlow) =>
    `select revoked_at from certificates where serial = '${certificateSerial}'`

  await ends(
    loggedIn,
    'FLOW_REVOKED',
    async ({ sessionId }) => assertReceipt(await postern(['session', 'revoke', sessionId, '--json'])),
    endedAt,
  )
  await ends(
    certified,
    'FLOW_REVOKED',
    async ({ certificateSerial }) =>
      assertReceipt(await postern(['revoke', '--certificate', certificateSerial, '--json'])),
    revokedAt,
  )
  await ends(
    locked,
    'IDENTITY_LOCKED',
    async () => assertReceipt(await postern(['lock', locked, '--reason', 'laptop is missing', '--json'])),
    () => `select locked_at from locks where key = '${locked}'`,
  )
  await ends(
    leaver,
    'FLOW_REVOKED',
    async () => assertReceipt(await postern(['revoke', '--identity', leaver, '--json'])),
    revokedAt,
  )
  const mine = open.use(new HeldFlow(first, main.host, clientCertificateOf(away, main.label)))
  await mine.echo('hello')
  await ends(
    loggedOut,
    'FLOW_REVOKED',
    async () => {
      const { code, stderr } = await runPostern(['logout'], { home: away })
      assert.equal(code, 0, stderr)
      await assert.rejects(mine.echo('afterwards'), { code: 'FLOW_REVOKED' })
    },
    endedAt,
  )
  const stranger = await homeOf('worker@mycorp.com', first)
  await ends(cut, 'FLOW_REVOKED', async ({ id }) => {
    const refused = await runPostern(['flow', 'cut', id], { home: stranger })
    assert.deepEqual([refused.code, /FLOW_UNKNOWN/.test(refused.stderr)], [1, true], refused.stderr)
    assertReceipt(await postern(['flow', 'cut', id, '--json']))
  })
  await ends(
    denied,
    'FLOW_REVOKED',
    async () => {
      const file = path.join(makeTempFolder('policy'), 'defaults.yaml')
      writeFileSync(file, `defaults: true\ndeny:\n  - { email_addresses: [${denied}] }\n`)
      await postern(['policy', 'apply', '-f', file, '--json'])
    },
    () => `select changed_at from policies where scope = 'defaults'`,
  )
  provider.accounts.set(renamed, { ...account('renamed@other.org'), sub: renamed })
  await ends(renamed, 'FLOW_REVOKED', async () => {
    const home = makeTempFolder('home')
    mkdirSync(home, { recursive: true })
    await logIn(first, home, renamed)
  })
})

test('the certificate of a program ends its flow at the other edge', async () => {
  const place = path.join(makeTempFolder('program'), 'certificate')
  const issued = await postern([
    'certificate',
    'issue',
    '--name',
    'relay',
    '--host',
    main.label,
    '--out',
    place,
    '--json',
  ])
  const file = path.join(makeTempFolder('policy'), 'policy.yaml')
  writeFileSync(
    file,
    `service: ${main.label}\nallow: [{ email_domains: [mycorp.com] }, { workloads: [relay] }]\n`,
  )
  await postern(['policy', 'apply', '-f', file, '--json'])
  const read = (name: string) => readFileSync(path.join(place, name), 'utf8')
  const identity = { key: read('key.pem'), cert: read('chain.pem') }
  const flow = open.use(new HeldFlow(second, main.host, identity))
  await flow.echo('hello')
  const { id } = await listed('workload:relay', main)
  await assertEnds('a program', flow, 'FLOW_REVOKED', {
    flowId: id,
    change: async () => {
      const receipt = await postern(['certificate', 'revoke', 'relay', '--json'])
      assert.deepEqual(
        [receipt.tlsCertificates, receipt.flows, receipt.otherEdges],
        [1, 0, { told: 1, done: 1 }],
      )
    },
    changedAt: `select revoked_at from certificates where serial = '${issued.serial}'`,
  })
  await assert.rejects(new HeldFlow(second, main.host, identity).echo('again'), {
    code: 'CERTIFICATE_REVOKED',
  })
})

test('a list, a document, a connector, all of a service and the service itself, each ends its flow at the other edge', async () => {
  const worker = 'worker@mycorp.com'
  const names = ['listed', 'written', 'connected', 'revoked', 'deleted'] as const
  const services = new Map<string, ConnectedService>()
  const flows = new Map<string, HeldFlow>()
  const ids = new Map<string, ListedFlow>()
  for (const name of names) {
    const service = open.use(await connectService({ home: atSecond, port: echo.port, name }))
    services.set(name, service)
    flows.set(name, await flowOf(worker, service))
    ids.set(name, await listed(worker, service))
  }
  bystanders.push(...flows.values())

  async function ends(
    name: (typeof names)[number],
    code: string,
    change: (service: ConnectedService) => Promise<unknown>,
    changedAt: (label: string) => string,
  ) {
    const flow = flows.get(name)!
    const service = services.get(name)!
    bystanders.splice(bystanders.indexOf(flow), 1)
    await assertEnds(name, flow, code, {
      flowId: ids.get(name)!.id,
      change: () => change(service),
      changedAt: changedAt(service.label),
    })
  }
  const idOf = (label: string) => `(select id from services where label = '${label}')`

  await ends(
    'listed',
    'FLOW_REVOKED',
    ({ label }) => postern(['service', 'update', label, '--allowed-email-domains', 'other.org', '--json']),
    (label) => `select updated_at from services where label = '${label}'`,
  )
  await ends(
    'written',
    'FLOW_REVOKED',
    async ({ label }) => {
      const file = path.join(makeTempFolder('policy'), 'policy.yaml')
      writeFileSync(file, `service: ${label}\ndeny:\n  - { email_addresses: [${worker}] }\n`)
      await postern(['policy', 'apply', '-f', file, '--json'])
    },
    (label) => `select changed_at from policies where scope = ${idOf(label)}`,
  )
  await ends(
    'connected',
    'FLOW_CUT',
    async (service) => {
      const { connectorId } = ids.get('connected')!
      const receipt = await postern(['revoke', '--connector', connectorId, '--json'])
      assert.deepEqual([receipt.connectors, receipt.otherEdges], [1, { told: 1, done: 1 }])
      assert.equal((await service.program.ended).code, 5)
      assert.match(service.program.stderr, /the certificate of this connector was revoked/)
    },
    (label) =>
      `select max(revoked_at) from certificates where kind = 'connector' and service_id = ${idOf(label)}`,
  )
  await ends(
    'revoked',
    'FLOW_REVOKED',
    ({ label }) => postern(['revoke', '--service', label, '--json']),
    () => `select revoked_at from certificates where serial = '${ids.get('revoked')!.certificateSerial}'`,
  )
  await ends(
    'deleted',
    'FLOW_REVOKED',
    async (service) => {
      const { code, stderr } = await runPostern(['service', 'delete', service.label], { home: atFirst })
      assert.equal(code, 0, stderr)
      await service.program.ended
      assert.match(service.program.stderr, new RegExp(`the service ${service.label} was deleted`))
    },
    (label) => `select deleted_at from services where label = '${label}'`,
  )
})

test('a change that the other edge could not hear is carried out once it listens again', async () => {
  const email = 'missed@mycorp.com'
  const flow = await flowOf(email, main)
  const { id, sessionId } = await listed(email, main)
  await assertEnds(email, flow, 'FLOW_REVOKED', {
    flowId: id,
    change: async () => {
      process.kill(second.pid, 'SIGSTOP') // it hears nothing, and its connection is gone when it wakes up
      try {
        await asAdmin(await sharedPostgres(), `select pg_terminate_backend(${listener})`)
        const receipt = await postern(['session', 'revoke', sessionId, '--json'])
        assert.deepEqual(receipt.otherEdges, { told: 1, done: 0 })
      } finally {
        process.kill(second.pid, 'SIGCONT')
      }
    },
  }).catch((error: unknown) => {
    throw new Error(second.logs().slice(-3_000), { cause: error })
  })
  await until('it hears again', () => second.logs().includes('"changes.heard_again"'))
  assert.match(second.logs(), /"changes\.not_heard"/)
  assert.equal((await readMetrics(second)).get('postern_changes_not_heard'), 0)
  assert.equal((await readMetrics(first)).get('postern_edges_other'), 1)
})

test('an edge that cannot listen for long counts as one without its store, and comes back by itself', async () => {
  const flow = await flowOf('deaf@mycorp.com', main)
  const place = await sharedPostgres()
  const name = new URL(database).pathname.slice(1)
  const mine = bystanders.splice(1) // those at the second edge
  await asAdmin(place, `alter database ${name} with allow_connections false`)
  try {
    const pids = await listeners()
    for (const pid of pids) await asAdmin(place, `select pg_terminate_backend(${pid})`)
    assert.equal(await endOf(flow), 'STORE_LOST')
    assert.equal((await readMetrics(second)).get('postern_changes_not_heard'), 1)
    assert.equal((await readMetrics(second)).get('postern_store_lost'), 1)
  } finally {
    await asAdmin(place, `alter database ${name} with allow_connections true`)
  }
  assert.equal(await endOf(mine[0]!), 'STORE_LOST')
  await until('the store is trusted again', () => second.logs().includes('"store.recovered"'))
  const back = await flowOf('deaf@mycorp.com', main)
  await back.echo(BLOCK)
})

test('what both edges did stands in two chains that verify', async () => {
  const signers = [first, second].map((edge) => {
    const ready = edge.logs().match(/"auditSigner":"(ed25519:[^"]+)"/)
    assert.ok(ready, edge.logs().slice(0, 1_000))
    return ready[1]!
  })
  const exported = await runPostern(['audit', 'export'], { home: atFirst })
  assert.equal(exported.code, 0, exported.stderr)
  const file = path.join(makeTempFolder('export'), 'audit.jsonl')
  writeFileSync(file, exported.stdout)
  const { code, stdout, stderr } = await runPostern(
    ['audit', 'verify', file, ...signers.flatMap((key) => ['--key', key]), '--json'],
    {
      home: makeTempFolder('home'),
    },
  )
  assert.equal(code, 0, stderr)
  assert.equal(JSON.parse(stdout).chains.length, 2)
})
