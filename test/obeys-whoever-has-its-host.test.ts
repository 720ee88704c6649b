import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { X509Certificate } from 'node:crypto'
import { chownSync, cpSync, globSync, readFileSync, writeFileSync } from 'node:fs'
import { userInfo } from 'node:os'
import path from 'node:path'
import { after, before, test } from 'node:test'
import { type ConnectedService, connectService } from './support/connect-service.ts'
import { makePerson } from './support/dev-browser.ts'
import { type EdgeProcess, startEdge } from './support/edge-process.ts'
import { HeldFlow } from './support/held-flow.ts'
import { runPostern } from './support/postern.ts'
import { runPosternEdge } from './support/postern-edge.ts'
import { startEcho, type TcpService } from './support/tcp-services.ts'
import { makeTempFolder } from './support/temp-folder.ts'
import { clientCertificateOf, type KeyAndCertificate } from './support/tls-peer.ts'
import { until, within } from './support/until.ts'

/** Commands beside the running edge, by somebody without a login: the edge hears of them, and the log knows who it was. */

const HOST_USER = `host:${userInfo().username}`

let edge: EdgeProcess
let echo: TcpService
let operator: string
let service: ConnectedService
const open = new AsyncDisposableStack()

before(async () => {
  edge = open.use(await startEdge({ keepsPort: true }))
  echo = open.use(await startEcho())
  operator = await makePerson(edge, 'operator@mycorp.com')
  service = open.use(await connectService({ home: operator, port: echo.port }))
})
after(() => open.disposeAsync())

const ca = (...args: string[]) => runPosternEdge(edge, ['ca', ...args])

async function postern(...args: string[]): Promise<string> {
  const { code, stdout, stderr } = await runPostern(args, { home: operator })
  assert.equal(code, 0, stderr)
  return stdout
}

async function obtain(email: string): Promise<KeyAndCertificate> {
  const home = await makePerson(edge, email)
  const args = ['client', 'tls', '--host', service.host]
  const { code, stderr } = await runPostern(args, { home, stdin: '' })
  assert.equal(code, 0, stderr)
  return clientCertificateOf(home, service.label)
}

const serialOf = (certificate: string) => new X509Certificate(certificate).serialNumber.toLowerCase()

async function isOver(flow: HeldFlow): Promise<boolean> {
  return flow.echo('still there').then(
    () => false,
    () => true,
  )
}

interface Revocation {
  email: string
  reason?: string
  sudoUser?: string
  revoked: { certificateSerial: string }
  receipt: { tlsCertificates: number }
}

async function recorded(serial: string): Promise<Revocation[]> {
  const listed = await postern(
    'audit',
    'list',
    '--json',
    '--type',
    'revocation.done',
    '--identity',
    HOST_USER,
  )
  const all = listed
    .split('\n')
    .filter(Boolean)
    .map((line): Revocation => JSON.parse(line))
  return all.filter(({ revoked }) => revoked.certificateSerial === serial)
}

test('a certificate of a person: its flow ends, no other opens, and the list and the log say why', async () => {
  const [hers, his] = [await obtain('ann@mycorp.com'), await obtain('bob@mycorp.com')]
  using live = new HeldFlow(edge, service.host, hers)
  using untouched = new HeldFlow(edge, service.host, his)
  await live.echo('before')
  await untouched.echo('before')

  const serial = serialOf(hers.cert)
  const args = ['revoke', serial.toUpperCase(), '--reason', 'keyCompromise', '--json']
  const first = await runPosternEdge(edge, ['ca', ...args], { SUDO_USER: 'carla' })
  assert.equal(first.code, 0, first.stderr)
  assert.deepEqual(JSON.parse(first.stdout), {
    serial,
    isFirst: true,
    tlsCertificates: 1,
    sshCertificates: 0,
  })
  await until('the end of her flow', () => isOver(live))
  using late = new HeldFlow(edge, service.host, hers)
  await assert.rejects(within('an answer', late.echo('x')), { code: 'CERTIFICATE_REVOKED' })
  await untouched.echo('his flow goes on')
  using another = new HeldFlow(edge, service.host, his)
  await another.echo('and he opens more')

  const crl = spawnSync('openssl', ['crl', '-noout', '-text'], {
    input: (await ca('crl')).stdout,
    encoding: 'utf8',
  }).stdout
  const [, entry] = crl.split(`Serial Number: ${serial.toUpperCase()}`)
  assert.match(entry!.split('Serial Number: ')[0]!, /Key Compromise/)
  const [event, ...more] = await recorded(serial)
  assert.equal(more.length, 0)
  assert.deepEqual([event?.email, event?.reason, event?.sudoUser], [HOST_USER, 'keyCompromise', 'carla'])

  const again = await ca('revoke', serial)
  assert.equal(again.code, 0, again.stderr)
  assert.match(again.stderr, /is revoked already, since 20/)
  assert.equal((await recorded(serial)).length, 1)
})

test('a certificate of a connector: it ends with its flows', async () => {
  const home = await makePerson(edge, 'operator@mycorp.com')
  await using doomed = await connectService({ home, port: echo.port, name: 'doomed' })
  const [file] = globSync(path.join(home, 'edges/**/certificate.json'))
  const serial = serialOf(JSON.parse(readFileSync(file!, 'utf8')).certificatePem)
  const reach = () => runPostern(['client', 'tls', '--host', doomed.host], { home, stdin: 'hello' })
  assert.equal((await reach()).stdout, 'hello')
  const { code, stderr } = await ca('revoke', serial)
  assert.equal(code, 0, stderr)
  await within('it gives up', doomed.program.ended)
  assert.match((await reach()).stderr, /SERVICE_OFFLINE/)
  const [event] = await recorded(serial)
  assert.equal(event?.receipt.tlsCertificates, 1)
})

test('what nobody has signed, what is no serial, and whose files they are not', async () => {
  const unknown = await ca('revoke', '4f0c9d1b2a3948576b7c8d9e0f1a2b3c')
  assert.equal(unknown.code, 1, unknown.stderr)
  assert.match(unknown.stderr, /has signed a certificate 4f0c.* \(CERTIFICATE_UNKNOWN\)\n.*ca list --all/)
  const malformed = await ca('revoke', 'ann@mycorp.com')
  assert.equal(malformed.code, 2, malformed.stderr)
  assert.match(malformed.stderr, /is not the serial of a certificate \(USAGE_INVALID\)/)
  const reason = await ca('revoke', '01', '--reason', 'superseded')
  assert.equal(reason.code, 2, reason.stderr)

  const foreign = path.join(makeTempFolder('foreign'), 'data')
  cpSync(path.join(edge.dataDir, 'audit'), path.join(foreign, 'audit'), { recursive: true })
  chownSync(foreign, 65_534, 65_534)
  const config = { ...JSON.parse(readFileSync(edge.configFile, 'utf8')), data_dir: foreign }
  const configFile = path.join(path.dirname(foreign), 'edge.yaml')
  writeFileSync(configFile, JSON.stringify(config), { mode: 0o600 })
  const notOurs = await runPosternEdge({ configFile }, ['ca', 'revoke', '01'])
  assert.equal(notOurs.code, 2, notOurs.stderr)
  assert.match(notOurs.stderr, /belongs to another user .*\(USAGE_INVALID\)\n.*sudo -u '#65534'/)
})

test('without a running edge it counts from its next start, and the log is one chain', async () => {
  const hers = await obtain('dora@mycorp.com')
  await edge.stop()
  const { code, stderr } = await ca('revoke', serialOf(hers.cert))
  assert.equal(code, 0, stderr)
  edge = open.use(await startEdge({ dataDir: edge.dataDir, port: edge.port }))
  using flow = new HeldFlow(edge, service.host, hers)
  await assert.rejects(within('an answer', flow.echo('x')), { code: 'CERTIFICATE_REVOKED' })
  const file = path.join(makeTempFolder('log'), 'export.jsonl')
  writeFileSync(file, await postern('audit', 'export'))
  const key = path.join(path.dirname(file), 'key.txt')
  writeFileSync(key, (await runPosternEdge(edge, ['audit', 'key'])).stdout)
  const verified = JSON.parse(await postern('audit', 'verify', file, '--key', key, '--json'))
  assert.equal(verified.verified, true)
  assert.equal(verified.chains.length, 1)
})
