import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { X509Certificate } from 'node:crypto'
import {
  chownSync,
  existsSync,
  globSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
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
import { attempt, clientCertificateOf, type KeyAndCertificate } from './support/tls-peer.ts'
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

interface Issued {
  serial: string
  renewUrl: string
  notBefore: number
  notAfter: number
}

/** As the guide of programs says, but on the edge's host. */
async function issueClient(out: string, ...more: string[]) {
  const folder = path.join(folders, out)
  const args = ['issue-client', '--name', 'relay-3', '--host', service.label, '--out', folder, ...more]
  return { folder, ...(await ca(...args)) }
}

const folders = makeTempFolder('programs')
const fileOf = (folder: string, name: string) => readFileSync(path.join(folder, name), 'utf8')

async function programSays(folder: string): Promise<string> {
  const identity = { key: fileOf(folder, 'key.pem'), cert: fileOf(folder, 'certificate.pem') }
  const { bytes } = await within('an answer', attempt(edge, { serverName: service.host, identity }))
  return bytes
}

test('the certificate of a program: nothing without a rule, then as one that an operator has made', async () => {
  const made = await issueClient('relay', '--ttl', '7d', '--json')
  assert.equal(made.code, 0, made.stderr)
  const issued: Issued = JSON.parse(made.stdout)
  const { folder } = made
  assert.equal(statSync(path.join(folder, 'key.pem')).mode & 0o777, 0o600)
  assert.ok(Math.abs(issued.notAfter - Date.now() - 7 * 86_400_000) < 3_600_000)
  assert.equal(await programSays(folder), '')
  const policy = path.join(folders, 'policy.yaml')
  writeFileSync(
    policy,
    `service: ${service.label}\nallow: [{ workloads: [relay-3] }, { email_domains: [mycorp.com] }]\n`,
  )
  await postern('policy', 'apply', '-f', policy)
  assert.equal(await programSays(folder), 'hello')

  // known as what it is
  const shown = JSON.parse(await postern('certificate', 'show', issued.serial, '--json'))
  assert.equal(shown.issuedBy, HOST_USER)
  const events = await postern('audit', 'list', '--json', '--type', 'certificate.issued')
  const event = events
    .split('\n')
    .filter(Boolean)
    .map((line) => JSON.parse(line))
    .find(({ certificateSerial }) => certificateSerial === issued.serial)
  assert.deepEqual([event.email, event.workload, event.label], [HOST_USER, 'relay-3', service.label])

  // it renews itself, and is taken back with its renewals, by the serial that it had first
  await postern('certificate', 'renew', folder)
  assert.equal(await programSays(folder), 'hello')
  assert.notEqual(serialOf(fileOf(folder, 'certificate.pem')), issued.serial)
  const again = await issueClient('relay')
  assert.equal(again.code, 2)
  assert.match(again.stderr, /it is there already \(USAGE_INVALID\)/)
  const revoked = await ca('revoke', issued.serial)
  assert.match(revoked.stderr, /2 certificates with all renewals/)
  assert.equal(await programSays(folder), '')
})

test('a program keeps its key; a weak one, a long time and a service that is not there are refused', async () => {
  const request = (name: string, bits: number) => {
    const [key, csr] = [path.join(folders, `${name}.key`), path.join(folders, `${name}.csr`)]
    const args = ['-newkey', `rsa:${bits}`, '-nodes', '-subj', '/CN=else', '-keyout', key, '-out', csr]
    assert.equal(spawnSync('openssl', ['req', '-new', ...args]).status, 0)
    return csr
  }
  const kept = await issueClient('kept', '--csr', request('strong', 2_048))
  assert.equal(kept.code, 0, kept.stderr)
  assert.deepEqual(readdirSync(kept.folder).sort(), ['ca.pem', 'certificate.pem', 'chain.pem'])
  assert.match(new X509Certificate(fileOf(kept.folder, 'certificate.pem')).subject, /^CN=relay-3$/)
  const verified = spawnSync('openssl', [
    ...['verify', '-x509_strict', '-purpose', 'sslclient'],
    ...['-CAfile', path.join(edge.dataDir, 'ca/workload-ca.pem'), path.join(kept.folder, 'certificate.pem')],
  ])
  assert.equal(verified.status, 0, verified.stderr.toString())

  const refused = async (pattern: RegExp, ...more: string[]) => {
    const { code, stderr, folder } = await issueClient('refused', ...more)
    assert.notEqual(code, 0)
    assert.match(stderr, pattern)
    assert.deepEqual(existsSync(folder) ? readdirSync(folder) : [], [], 'nothing of it is left')
  }
  await refused(/bits, 2048 are the least \(REQUEST_INVALID\)/, '--csr', request('weak', 1_024))
  await refused(/must be .* at this edge \(REQUEST_INVALID\)/, '--ttl', '400d')
  await refused(/has no service "nothing-here-1" \(SERVICE_UNKNOWN\)/, '--host', 'nothing-here-1')
  await refused(/\(WORKLOAD_INVALID\)/, '--name', 'no/name')
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
})

/** As under the packaged unit, whose user nobody can become. */
test('root works in the folder of another user, and leaves nothing there that is closed to them', async () => {
  const foreign = path.join(makeTempFolder('foreign'), 'data')
  const passphrase = path.join(path.dirname(foreign), 'passphrase')
  writeFileSync(passphrase, 'the passphrase of another user', { mode: 0o600 })
  mkdirSync(foreign, { mode: 0o700 })
  chownSync(foreign, NOBODY, NOBODY)
  const config = {
    ...JSON.parse(readFileSync(edge.configFile, 'utf8')),
    ...{ data_dir: foreign, store: `sqlite:${foreign}/postern.db`, ca: { key_passphrase_file: passphrase } },
  }
  const configFile = path.join(path.dirname(foreign), 'edge.yaml')
  writeFileSync(configFile, JSON.stringify(config), { mode: 0o600 })
  const onHost = async (...command: string[]) => {
    const { code, stderr } = await runPosternEdge({ configFile }, ['ca', ...command])
    assert.equal(code, 0, stderr)
    for (const name of ['.', ...readdirSync(foreign, { recursive: true }).map(String)]) {
      assert.equal(statSync(path.join(foreign, name)).uid, NOBODY, `${name} after ${command[0]}`)
    }
  }
  await onHost('init')
  const { code } = await runPosternEdge({ configFile }, ['ca', 'revoke', '01'])
  assert.equal(code, 1, 'no such certificate: the store and the chain are there')
  await onHost('list')
  await onHost('rotate')
  await onHost('encrypt-keys', '--unsafe-decrypt')
  await onHost('encrypt-keys')
  await onHost('request', '--out', path.join(path.dirname(foreign), 'edge-ca.csr'))
  // a key of root's is not read for them
  const link = path.join(foreign, 'ca/another-ca.key')
  symlinkSync(edge.caFile.replace('.pem', '.key'), link)
  const linked = await runPosternEdge({ configFile }, ['ca', 'encrypt-keys'])
  assert.match(linked.stderr, /another-ca\.key is a link \(CONFIG_INVALID\)/)
})

const NOBODY = 65_534

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
