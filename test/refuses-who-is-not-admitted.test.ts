import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { type ConnectedService, connectService } from './support/connect-service.ts'
import { makePerson } from './support/dev-browser.ts'
import { type EdgeProcess, startEdge } from './support/edge-process.ts'
import { runPostern, spawnPostern } from './support/postern.ts'
import { startEcho, type TcpService } from './support/tcp-services.ts'
import { within } from './support/until.ts'

let edge: EdgeProcess
let echo: TcpService
let service: ConnectedService
let operator: string
let contractor: string

before(async () => {
  edge = await startEdge()
  echo = await startEcho()
  operator = await makePerson(edge, 'operator@mycorp.com')
  contractor = await makePerson(edge, 'contractor@gmail.com')
  service = await connectService({ home: operator, port: echo.port })
})
after(async () => {
  await service?.[Symbol.asyncDispose]()
  await echo?.[Symbol.asyncDispose]()
  await edge?.[Symbol.asyncDispose]()
})

const reach = (home: string, host = service.host) =>
  runPostern(['client', 'tls', '--host', host], { home, stdin: 'hello' })
const update = (...args: string[]) =>
  runPostern(['service', 'update', service.label, ...args], { home: operator })

interface Event {
  type: string
  /** Epoch milliseconds. */
  at: number
  email?: string
  code?: string
  rule?: string
  decision?: string
  bytesUp?: number
  certificateSerial?: string
}
async function audit(type: string): Promise<Event[]> {
  const { stdout, code } = await runPostern(['audit', 'list', '--json', '--type', type, '--limit', '1000'], {
    home: operator,
  })
  assert.equal(code, 0)
  return stdout
    .split('\n')
    .filter(Boolean)
    .map((line) => JSON.parse(line) as Event)
}

test('a person the service does not admit: exit 5, the reason on stderr, no connection, a record', async () => {
  const denied = await reach(contractor)
  assert.equal(denied.code, 5)
  assert.equal(denied.stdout, '')
  assert.match(denied.stderr, /ACCESS_DENIED/)
  assert.match(denied.stderr, /not available to you/)
  assert.doesNotMatch(denied.stderr, /mycorp\.com.*admit|no rule/i, 'the rule is for auditors')
  assert.equal(echo.connections.length, 0)
  const refused = (await audit('certificate.refused')).at(-1)
  assert.equal(refused?.email, 'contractor@gmail.com')
  assert.equal(refused?.code, 'ACCESS_DENIED')
  assert.equal(refused?.rule, 'no rule admits')
})

test('a service that does not exist looks the same to them', async () => {
  const known = await reach(contractor)
  const unknown = await reach(contractor, 'no-such-1234.edge.localhost')
  assert.equal(unknown.code, 5)
  assert.equal(unknown.stderr.replaceAll('no-such-1234', service.label), known.stderr)
})

test('admitted without a new login once the list says so; refused at the next flow once it does not', async () => {
  const admitted = await update(
    '--allowed-email-domains',
    'mycorp.com',
    '--allowed-email-addresses',
    'contractor@gmail.com',
  )
  assert.equal(admitted.code, 0, admitted.stderr)
  const welcome = await reach(contractor)
  assert.equal(welcome.code, 0, welcome.stderr)
  assert.equal(welcome.stdout, 'hello')
  const before = echo.connections.length

  const withdrawn = await update('--allowed-email-domains', 'mycorp.com')
  assert.equal(withdrawn.code, 0, withdrawn.stderr)
  const issuedBefore = (await audit('certificate.issued')).length
  const refused = await reach(contractor) // its certificate is still valid: the flow itself is refused
  assert.equal(refused.code, 5)
  assert.match(refused.stderr, /ACCESS_DENIED/)
  assert.equal(echo.connections.length, before)
  assert.equal((await audit('certificate.issued')).length, issuedBefore)
  const decision = (await audit('flow.decided')).at(-1)
  assert.deepEqual(
    [decision?.email, decision?.decision, decision?.code, decision?.rule],
    ['contractor@gmail.com', 'deny', 'ACCESS_DENIED', 'no rule admits'],
  )
})

test('a live flow ends within a second when the list no longer admits its person', async () => {
  await update('--allowed-email-domains', 'mycorp.com', '--allowed-email-addresses', 'contractor@gmail.com')
  await using flow = spawnPostern(['client', 'tls', '--host', service.host], { home: contractor })
  await using other = spawnPostern(['client', 'tls', '--host', service.host], { home: operator })
  for (const { child } of [flow, other]) child.stdin.write('ping')
  await flow.matches(/ping/)
  await other.matches(/ping/)

  await update('--allowed-email-domains', 'mycorp.com')
  const ended = await within('the flow ends', flow.ended)
  assert.equal(ended.code, 5)
  assert.match(ended.stderr, /FLOW_REVOKED/)
  other.child.stdin.end(' still here')
  const kept = await other.ended
  assert.equal(kept.code, 0, kept.stderr)
  assert.equal(kept.stdout, 'ping still here')
  const closed = (await audit('flow.closed')).find(
    ({ email, code }) => email === 'contractor@gmail.com' && code,
  )
  assert.equal(closed?.code, 'FLOW_REVOKED')
  // by the edge's clock: how long this machine takes to end a process says nothing about it
  const changed = (await audit('service.updated')).at(-1)
  assert.ok(closed.at - changed!.at < 1_000, `${closed.at - changed!.at} ms`)
})

test('a live flow ends when the person logs out', async () => {
  const home = await makePerson(edge, 'leaver@mycorp.com')
  await using flow = spawnPostern(['client', 'tls', '--host', service.host], { home })
  flow.child.stdin.write('ping')
  await flow.matches(/ping/)
  const left = await runPostern(['logout'], { home })
  assert.equal(left.code, 0, left.stderr)
  const ended = await within('the flow ends', flow.ended)
  assert.equal(ended.code, 5)
  assert.match(ended.stderr, /FLOW_REVOKED/)
})

test('nobody without a session gets a certificate, and no browser opens by itself', async () => {
  const home = await makePerson(edge, 'leaver@mycorp.com')
  await runPostern(['logout'], { home })
  const started = performance.now()
  const refused = await reach(home)
  assert.equal(refused.code, 4)
  assert.match(refused.stderr, new RegExp(`postern login --edge ${edge.origin}`))
  assert.ok(performance.now() - started < 20_000)
})
