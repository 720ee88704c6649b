import assert from 'node:assert/strict'
import { globSync, readFileSync } from 'node:fs'
import path from 'node:path'
import { after, before, test } from 'node:test'
import { findFreePort } from '../demo/free-port.ts'
import { type ConnectedService, connectService } from './support/connect-service.ts'
import { makeDevBrowser, makePerson } from './support/dev-browser.ts'
import { type EdgeProcess, startEdge } from './support/edge-process.ts'
import { runPostern, spawnPostern } from './support/postern.ts'
import { startEcho, type TcpService } from './support/tcp-services.ts'
import { makeTempFolder } from './support/temp-folder.ts'
import { clientCertificateOf } from './support/tls-peer.ts'
import { until } from './support/until.ts'
import { startUpstreamProvider, type UpstreamProvider } from './support/upstream-provider.ts'

/** The audit log says who reached what and when, and leads from one fact to the next; nothing that is printed,
 *  logged or stored gives a secret away. */

let provider: UpstreamProvider
let edge: EdgeProcess
let echo: TcpService
let admin: string
let ann: string
let service: ConnectedService
/** Everything that any program of this test has printed. */
const printed: string[] = []

before(async () => {
  const port = await findFreePort()
  const person = (name: string) => ({ sub: name, email: `${name}@mycorp.com`, email_verified: true })
  provider = await startUpstreamProvider({
    edgeOrigin: `https://edge.localhost:${port}`,
    accounts: {
      'operator@mycorp.com': person('operator'),
      'ann@mycorp.com': person('ann'),
      'eve@mycorp.com': { ...person('eve'), email_verified: false },
    },
  })
  edge = await startEdge({ port, identity: provider.identity })
  echo = await startEcho()
  admin = await makePerson(edge, 'operator@mycorp.com')
  service = await connectService({ home: admin, port: echo.port })
})
after(async () => {
  await service?.[Symbol.asyncDispose]()
  await echo?.[Symbol.asyncDispose]()
  await edge?.[Symbol.asyncDispose]()
  await provider?.[Symbol.asyncDispose]()
})

type Event = Record<string, unknown> & { seq: number; at: number; type: string }

async function run(home: string, args: readonly string[], stdin = '') {
  const result = await runPostern(args, { home, stdin })
  printed.push(result.stdout, result.stderr)
  return result
}

async function audit(...args: string[]): Promise<Event[]> {
  const { code, stdout, stderr } = await run(admin, ['audit', 'list', '--json', '--limit', '1000', ...args])
  assert.equal(code, 0, stderr)
  return stdout
    .split('\n')
    .filter(Boolean)
    .map((line) => JSON.parse(line) as Event)
}

test('from the login to the last byte, one fact leads to the next', async () => {
  const startedAt = Date.now()
  ann = makeTempFolder('home')
  const browser = await makeDevBrowser(edge, ann, 'ann@mycorp.com')
  const login = await run(ann, [
    ...['login', '--edge', edge.origin, '--ca-file', edge.caFile, '--browser', browser],
  ])
  assert.equal(login.code, 0, login.stderr)
  const reached = await run(ann, ['client', 'tls', '--host', service.host], 'x'.repeat(5_000))
  assert.equal(reached.stdout.length, 5_000, reached.stderr)

  const events = await until('the flow is closed', async () => {
    const all = await audit()
    return all.some(({ type, email }) => type === 'flow.closed' && email === 'ann@mycorp.com') && all
  })
  const ofAnn = (type: string) => {
    const found = events.filter((event) => event.type === type && event.email === 'ann@mycorp.com')
    assert.equal(found.length, 1, `${type} of ann: ${JSON.stringify(found)}`)
    return found[0]!
  }
  const signedIn = ofAnn('login.ok')
  const issued = ofAnn('certificate.issued')
  const decided = ofAnn('flow.decided')
  const closed = ofAnn('flow.closed')
  const created = events.find(({ type }) => type === 'service.created')!
  const attached = events.find(({ type }) => type === 'connector.attached')!

  assert.deepEqual([signedIn.issuer, signedIn.subject], [provider.issuer, 'ann'])
  for (const event of [issued, decided, closed]) assert.equal(event.identityId, signedIn.identityId)
  assert.equal(issued.sessionId, signedIn.sessionId)
  for (const event of [issued, decided, closed, attached]) assert.equal(event.serviceId, created.serviceId)
  for (const event of [decided, closed]) assert.equal(event.certificateSerial, issued.certificateSerial)
  assert.equal(closed.flowId, decided.flowId)
  assert.equal(closed.connectorId, attached.connectorId)
  const told = await service.event('flow.closed', ({ email }) => email === 'ann@mycorp.com')
  assert.equal(told.flowId, decided.flowId, 'the connector names the flow differently')

  assert.deepEqual([decided.decision, decided.rule], ['allow', 'email domain mycorp.com'])
  assert.deepEqual([closed.bytesUp, closed.bytesDown, closed.code], [5_000, 5_000, undefined])
  for (const event of [signedIn, issued, decided, closed])
    assert.match(String(event.clientAddress), /^127\.0\.0\.1/)
  const order = [signedIn, issued, decided, closed]
  for (const [index, event] of order.entries()) {
    assert.ok(index === 0 || event.seq > order[index - 1]!.seq, 'in the order of what happened')
    assert.ok(event.at >= startedAt - 1_000 && event.at <= Date.now() + 1_000)
  }
})

test('who is turned away at the login is recorded with the reason', async () => {
  const home = makeTempFolder('home')
  const browser = await makeDevBrowser(edge, home, 'eve@mycorp.com')
  await using login = spawnPostern(
    ['login', '--edge', edge.origin, '--ca-file', edge.caFile, '--browser', browser],
    { home, stdin: '' },
  )
  const refused = await until(
    'the refusal is recorded',
    async () => (await audit('--type', 'login.refused'))[0],
  )
  assert.deepEqual([refused.code, refused.email, refused.subject], ['LOGIN_REFUSED', 'eve@mycorp.com', 'eve'])
  assert.match(String(refused.reason), /not verified/)
  await login.stop('SIGINT')
  printed.push(login.logs())
})

test('changes of a service are recorded with what was before', async () => {
  const change = [
    'service',
    'update',
    service.label,
    '--allowed-email-domains',
    'mycorp.com,elsewhere.example',
  ]
  assert.equal((await run(admin, change)).code, 0)
  const [updated] = await audit('--type', 'service.updated')
  const domains = (state: unknown) => (state as { allow: { emailDomains: string[] } }).allow.emailDomains
  assert.deepEqual(domains(updated?.before), ['mycorp.com'])
  assert.deepEqual(domains(updated?.after), ['elsewhere.example', 'mycorp.com'])
  assert.equal(updated?.email, 'operator@mycorp.com')
})

test('the log is read from where one stopped, by type, and as a table', async () => {
  const all = await audit()
  const middle = all[Math.floor(all.length / 2)]!
  const later = await audit('--after', String(middle.seq))
  assert.equal(later[0]?.seq, middle.seq + 1)
  const types = new Set((await audit('--type', 'certificate.issued')).map(({ type }) => type))
  assert.deepEqual([...types], ['certificate.issued'])
  const table = await run(admin, ['audit', 'list', '--limit', '5'])
  assert.match(table.stdout, /^SEQ +TIME +TYPE +WHAT\n/)
  assert.equal(table.stdout.trimEnd().split('\n').length, 6)
})

test('nobody but auditors and admins reads it: exit 5', async () => {
  const refused = await run(ann, ['audit', 'list', '--json'])
  assert.equal(refused.code, 5)
  assert.equal(refused.stdout, '')
  assert.match(refused.stderr, /AUDITOR_REQUIRED/)
})

test('a connector that comes and goes is recorded', async () => {
  const other = await connectService({ home: admin, port: echo.port, name: 'short-lived' })
  await other.stop()
  const lost = await until('its end is recorded', async () => {
    const events = await audit('--type', 'connector.lost')
    return events.find(({ label }) => label === other.label)
  })
  const attached = (await audit('--type', 'connector.attached')).find(({ label }) => label === other.label)
  assert.equal(lost.attachmentId, attached?.attachmentId)
  printed.push(other.logs())
})

test('no token, code, key or cookie is printed, logged or kept by the edge', async () => {
  await run(ann, ['whoami', '--json'])
  await run(ann, ['service', 'list', '--json'])
  await run(admin, ['service', 'show', service.label, '--json'])

  const secrets = new Map<string, string>()
  const keep = (what: string, secret: string) => {
    assert.ok(secret.length >= 20, `${what} is not what was expected`)
    secrets.set(what, secret)
  }
  for (const home of [admin, ann]) {
    const session = JSON.parse(readFileSync(globSync(path.join(home, 'edges/*/session.json'))[0]!, 'utf8'))
    keep(`access token of ${session.email}`, session.accessToken)
    keep(`refresh token of ${session.email}`, session.refreshToken)
    keep(`DPoP key of ${session.email}`, session.dpopKey.d)
  }
  keep('client key', pemBody(clientCertificateOf(ann, service.label).key))
  for (const file of globSync(path.join(admin, 'edges/*/connectors/*/*/certificate.json'))) {
    keep(`connector key in ${file}`, pemBody(JSON.parse(readFileSync(file, 'utf8')).keyPem))
  }
  const caKeys = globSync(path.join(edge.dataDir, 'ca', '*.key')).concat(
    globSync(path.join(edge.dataDir, 'ca', '*key*.pem')),
  )
  for (const file of caKeys) keep(file, pemBody(readFileSync(file, 'utf8')))
  assert.ok(caKeys.length >= 3, 'the keys of the CAs were looked for in the wrong place')
  keep('client secret', provider.identity.clientSecret)
  for (const { searchParams } of provider.authorizationRequests) {
    keep(`state ${secrets.size}`, searchParams.get('state')!)
    keep(`nonce ${secrets.size}`, searchParams.get('nonce')!)
  }

  const places = new Map<string, string>([
    ['output of the edge', edge.logs()],
    ['output of the connector', service.logs()],
    // the address of a login holds its own state and nonce, and nothing that opens anything
    ['output of the commands', printed.join('\n')],
  ])
  const stored = globSync(path.join(edge.dataDir, 'edge.sqlite*'))
  assert.ok(stored.length > 0)
  for (const file of stored) places.set(file, readFileSync(file, 'latin1'))
  for (const [where, text] of places) {
    assert.ok(text.length > 0 || where.endsWith('-wal'), `${where} is empty`)
    for (const [what, secret] of secrets) assert.ok(!text.includes(secret), `${what} in ${where}`)
    if (!where.includes('sqlite')) {
      assert.doesNotMatch(text, /eyJ[\w-]+\.eyJ/, `a JWT in ${where}`)
      assert.doesNotMatch(text, /[?&]code=/, `a code in ${where}`)
      assert.doesNotMatch(text, /PRIVATE KEY|set-cookie|__Host-[\w-]+=/i, `a key or cookie in ${where}`)
    }
  }
})

/** The middle of a PEM: no header, no line ends at its borders. */
function pemBody(pem: string): string {
  return pem.split('\n')[1]!
}
