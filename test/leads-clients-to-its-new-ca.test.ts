import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { X509Certificate } from 'node:crypto'
import { globSync, readdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { after, before, test } from 'node:test'
import { quoteForShell } from '../demo/dev-login.ts'
import { type ConnectedService, connectService } from './support/connect-service.ts'
import { makeDevBrowser, makePerson } from './support/dev-browser.ts'
import { type EdgeProcess, startEdge } from './support/edge-process.ts'
import { HeldFlow } from './support/held-flow.ts'
import { connectTo, startListener } from './support/listen.ts'
import { runPostern } from './support/postern.ts'
import { runPosternEdge } from './support/postern-edge.ts'
import { startEcho, type TcpService } from './support/tcp-services.ts'
import { makeTempFolder } from './support/temp-folder.ts'
import { clientCertificateOf } from './support/tls-peer.ts'
import { until, within } from './support/until.ts'

/** The CA of the edge's own certificate, which everybody pins, is replaced: who comes by while both are believed follows by
 *  itself, and nobody is led anywhere by a CA that the pinned one has not signed. */

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

async function ca(...args: string[]): Promise<string> {
  const { code, stdout, stderr } = await runPosternEdge(edge, ['ca', ...args])
  assert.equal(code, 0, stderr)
  return stdout
}

const PEM = /-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g
const fingerprintOf = (pem: string) =>
  `sha256:${new X509Certificate(pem).fingerprint256.replaceAll(':', '').toLowerCase()}`
const fingerprintsIn = (pem: string) => pem.match(PEM)!.map(fingerprintOf)

/** The CAs that somebody's machine believes. */
function believedBy(home: string): string[] {
  const [file] = globSync(path.join(home, 'edges', '*', 'edge.json'))
  return fingerprintsIn(JSON.parse(readFileSync(file!, 'utf8')).caPem)
}

const reach = (home: string) =>
  runPostern(['client', 'tls', '--host', service.host], { home, stdin: 'hello' })

async function reaches(home: string): Promise<void> {
  const { stdout, stderr } = await reach(home)
  assert.equal(stdout, 'hello', stderr)
}

/** The next use asks the edge for a new certificate. */
function runOut(home: string): void {
  const files = globSync(path.join(home, 'edges', '*', 'certificates', '*.json'))
  assert.equal(files.length, 1)
  for (const file of files)
    writeFileSync(file, JSON.stringify({ ...JSON.parse(readFileSync(file, 'utf8')), notAfter: Date.now() }))
}

async function echoes(port: number): Promise<void> {
  const socket = await connectTo(port)
  socket.end('hello')
  let heard = ''
  for await (const chunk of socket) heard += String(chunk)
  assert.equal(heard, 'hello')
}

async function signIn(email: string, fingerprint: string, home = makeTempFolder('home')): Promise<string> {
  const caFile = path.join(makeTempFolder('ca'), 'ca.pem')
  writeFileSync(caFile, await ca('export')) // for the browser
  const browser = quoteForShell(await makeDevBrowser({ ...edge, caFile }, home, email))
  const args = ['login', '--edge', edge.origin, '--ca-fingerprint', fingerprint, '--browser', browser]
  const { code, stderr } = await runPostern(args, { home })
  assert.equal(code, 0, stderr)
  return home
}

/** Programs of others, each with this CA and no option that loosens the check. */
function othersBelieve(caPem: string): void {
  const caFile = path.join(makeTempFolder('ca'), 'ca.pem')
  writeFileSync(caFile, caPem)
  const python = [
    'import socket, ssl, sys',
    'context = ssl.create_default_context(cafile=sys.argv[1])',
    's = context.wrap_socket(socket.create_connection(("127.0.0.1", int(sys.argv[2]))), server_hostname=sys.argv[3])',
    'print(s.version())',
  ].join('\n')
  const at = ['--connect-to', `${edge.domain}::127.0.0.1:${edge.port}`, `${edge.origin}/v1/edge`]
  const connect = ['-connect', `127.0.0.1:${edge.port}`, '-servername', edge.domain]
  const verify = ['-verify_return_error', '-verify_hostname', edge.domain]
  const stunnel = path.join(path.dirname(caFile), 'stunnel.conf')
  const address = [`connect = 127.0.0.1:${edge.port}`, `sni = ${edge.domain}`, `checkHost = ${edge.domain}`]
  writeFileSync(stunnel, ['client = yes', ...address, `CAfile = ${caFile}`, 'verifyChain = yes'].join('\n'))
  const host = new URL(edge.origin).host
  const input = `GET /v1/edge HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n\r\n`
  const programs: [string, string[]][] = [
    ['curl', ['-sS', '--fail', '--cacert', caFile, ...at]],
    ['openssl', ['s_client', ...connect, '-CAfile', caFile, ...verify]],
    ['python3', ['-c', python, caFile, String(edge.port), edge.domain]],
    ['stunnel', [stunnel]],
  ]
  for (const [program, args] of programs) {
    const { status, stdout, stderr } = spawnSync(program, args, { input, encoding: 'utf8', timeout: 60_000 })
    assert.equal(status, 0, `${program}: ${stderr}`)
    assert.match(stdout, /"authorities":|TLSv1\.[23]/, `${program}: ${stderr}`)
  }
}

test('who pins the CA of the edge comes to believe the next one, and nobody notices', async () => {
  const old = readFileSync(edge.caFile, 'utf8')
  const oldPrint = fingerprintOf(old)
  const ann = await makePerson(edge, 'ann@mycorp.com')
  const bob = await makePerson(edge, 'bob@mycorp.com')
  for (const home of [ann, bob]) await reaches(home)
  await using listener = await startListener({ home: ann, host: service.host })
  const carl = await makePerson(edge, 'carl@mycorp.com')
  await reaches(carl)
  using flow = new HeldFlow(edge, service.host, clientCertificateOf(carl, service.label))
  await within('an echo', flow.echo('before'))
  const tokenFile = path.join(makeTempFolder('token'), 'token')
  const token = ['service', 'enroll-token', service.label, '--out', tokenFile]
  assert.equal((await runPostern(token, { home: operator })).code, 0)
  const server = {
    ...{ home: makeTempFolder('server'), port: echo.port, allowedEmailDomains: [] },
    args: ['--edge', edge.origin, '--ca-fingerprint', oldPrint, '--enroll-token-file', tokenFile],
  }
  const enrolled = await connectService(server)
  await enrolled.stop()
  const program = path.join(makeTempFolder('program'), 'certificate')
  const issue = ['certificate', 'issue', '--name', 'sensor-7', '--host', service.label, '--out', program]
  const issued = await runPostern(issue, { home: operator })
  assert.equal(issued.code, 0, issued.stderr)

  await ca('rotate', '--kind', 'edge')
  await until('the edge knows', () => edge.logs().includes('"ca.changed"'))
  const exported = await ca('export')
  const both = fingerprintsIn(exported)
  assert.equal(both[0], oldPrint)
  assert.equal(both.length, 2)
  const next = both[1]!
  const newPem = exported.match(PEM)![1]!
  await within('an echo', flow.echo('during'))

  // with a certificate of before, and nothing but the old CA
  await reaches(ann)
  assert.deepEqual(believedBy(ann), [oldPrint])
  await echoes(listener.port)
  for (const pem of [old, exported, `${newPem}\n`]) othersBelieve(pem)
  // whoever renews learns of the next one
  runOut(ann)
  await echoes(listener.port)
  assert.deepEqual(believedBy(ann), both)
  await until('the connector has learned of it', () => believedBy(operator).length === 2)
  assert.deepEqual(believedBy(operator), both)
  const again = await connectService(server)
  await again.stop()
  const hasFollowed = () => believedBy(server.home).length === 2
  if (!hasFollowed()) {
    await using waits = await connectService(server)
    await waits.event('renewed', undefined, 120_000)
  }
  assert.deepEqual(believedBy(server.home), both)
  // on a machine where nobody has signed in, the folder says whom to believe
  const renew = ['certificate', 'renew', program, '--edge', edge.origin]
  const renewed = await runPostern(renew, { home: makeTempFolder('home') })
  assert.equal(renewed.code, 0, renewed.stderr)
  assert.deepEqual(fingerprintsIn(readFileSync(path.join(program, 'ca.pem'), 'utf8')), both)
  // both fingerprints lead in
  assert.deepEqual(believedBy(await signIn('dora@mycorp.com', oldPrint)), both)
  const newcomer = await signIn('emil@mycorp.com', next)
  assert.deepEqual(believedBy(newcomer), [next])
  await reaches(newcomer)
  const status = await runPosternEdge(edge, ['status'])
  assert.match(status.stdout, /^old CA +believed until \d{4}-/m)

  await ca('rotate', '--kind', 'edge', '--unsafe-end-overlap')
  await until('the edge knows', () => edge.logs().match(/"ca.changed"/g)?.length === 2)
  await within('an echo', flow.echo('after'))
  await reaches(ann)
  await echoes(listener.port)
  runOut(ann)
  await reaches(ann)
  assert.deepEqual(believedBy(ann), [next])
  await echoes(listener.port)
  await until('the connector has forgotten the old one', () => believedBy(operator).length === 1)
  await service.stop()
  service = open.use(await connectService({ home: operator, port: echo.port }))
  await reaches(ann)
  // its command line still names the old one
  await using enrolledLater = await connectService(server)
  assert.equal(enrolledLater.host, service.host)

  // who slept through it is told what to do, and the line works
  const slept = await reach(bob)
  assert.equal(slept.code, 6, slept.stderr)
  const line = `postern login --edge ${edge.origin} --ca-fingerprint sha256:HEX`
  assert.ok(slept.stderr.includes(line), slept.stderr)
  assert.match(slept.stderr, /\(EDGE_UNTRUSTED\)/)
  assert.deepEqual(believedBy(bob), [oldPrint])
  await signIn('bob@mycorp.com', next, bob)
  await reaches(bob)
})

test('a CA that the pinned one has not signed is not believed, also when the edge names it', async () => {
  await using own = await startEdge({ keepsPort: true })
  const home = await makePerson(own, 'operator@mycorp.com')
  await using theirs = await connectService({ home, port: echo.port })
  await using other = await startEdge({})
  await own.stop()
  for (const at of [own, other]) {
    const rotated = await runPosternEdge(at, ['ca', 'rotate', '--kind', 'edge', '--signs-in', '1h'])
    assert.equal(rotated.code, 0, rotated.stderr)
  }
  // somebody puts another edge's CA, with its own cross-certificate, in the place of the next one
  const filesOf = ({ dataDir }: EdgeProcess) =>
    readdirSync(path.join(dataDir, 'ca'))
      .filter((name) => name.startsWith('edge-ca-'))
      .sort()
      .map((name) => path.join(dataDir, 'ca', name))
  const [mine, foreign] = [filesOf(own), filesOf(other)]
  assert.equal(mine.length, 3)
  for (const [index, file] of mine.entries()) renameSync(foreign[index]!, file)
  const port = own.port
  await using again = await startEdge({ dataDir: own.dataDir, port })
  await theirs.event('reconnected', undefined, 120_000)

  const pinned = believedBy(home)
  const reached = await runPostern(['client', 'tls', '--host', theirs.host], { home, stdin: 'hello' })
  assert.equal(reached.stdout, 'hello', reached.stderr)
  assert.match(reached.stderr, /the CA of https:\/\/\S+ stays as it is: the CA sha256:\w+ was not signed by/)
  assert.deepEqual(believedBy(home), pinned)
  assert.ok(again.logs().includes('edge.ready'))
})
