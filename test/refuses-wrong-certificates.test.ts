import assert from 'node:assert/strict'
import { X509Certificate } from 'node:crypto'
import { globSync, readFileSync } from 'node:fs'
import path from 'node:path'
import { after, before, test } from 'node:test'
import { ALPN_DATA, ALPN_FLOW } from '@postern/shared/protocol/frames'
import { type ConnectedService, connectService } from './support/connect-service.ts'
import { makePerson } from './support/dev-browser.ts'
import { type EdgeProcess, startEdge } from './support/edge-process.ts'
import { runPostern } from './support/postern.ts'
import { startEcho, type TcpService } from './support/tcp-services.ts'
import {
  attempt,
  CLOSED_WITHOUT_A_WORD,
  clientCertificateOf,
  dial,
  forgeCertificate,
  type KeyAndCertificate,
} from './support/tls-peer.ts'
import { within } from './support/until.ts'

let edge: EdgeProcess
let echo: TcpService
let service: ConnectedService
let other: ConnectedService
let home: string
let good: KeyAndCertificate

before(async () => {
  edge = await startEdge()
  echo = await startEcho()
  home = await makePerson(edge, 'operator@mycorp.com')
  service = await connectService({ home, port: echo.port, name: 'one' })
  other = await connectService({ home, port: echo.port, name: 'two' })
  for (const { host } of [service, other]) {
    const { code, stderr } = await runPostern(['client', 'tls', '--host', host], { home, stdin: '' })
    assert.equal(code, 0, stderr)
  }
  good = clientCertificateOf(home, service.label)
})
after(async () => {
  await service?.[Symbol.asyncDispose]()
  await other?.[Symbol.asyncDispose]()
  await echo?.[Symbol.asyncDispose]()
  await edge?.[Symbol.asyncDispose]()
})

/** Tries both forms of a flow. Nothing may come back, and the service must see nobody. */
async function assertRefused(identity: KeyAndCertificate | undefined, serverName = service.host) {
  const seenBefore = echo.connections.length
  const codes: (string | undefined)[] = []
  for (const alpn of [ALPN_FLOW, undefined]) {
    const result = await within(
      'the edge closes',
      attempt(edge, { serverName, ...(alpn ? { alpn } : {}), ...(identity ? { identity } : {}) }),
    )
    assert.equal(result.bytes, '')
    codes.push(result.code)
  }
  assert.equal(echo.connections.length, seenBefore, 'the service saw a connection')
  assert.ok(edge.program.isRunning, 'the edge did not survive it')
  assert.notEqual(codes[0], 'ECONNREFUSED')
  return codes[0]
}

/** Before anybody has looked into the store: what is unknown there is told so, see below. */
async function assertRefusedInHandshake(identity: KeyAndCertificate | undefined): Promise<void> {
  assert.match(String(await assertRefused(identity)), CLOSED_WITHOUT_A_WORD)
}

const caFiles = (kind: string) => ({
  certificate: path.join(edge.dataDir, 'ca', `${kind}-ca.pem`),
  key: path.join(edge.dataDir, 'ca', `${kind}-ca.key`),
})
const namesOf = ({ cert }: KeyAndCertificate) =>
  new X509Certificate(cert).subjectAltName!.replaceAll(', ', ',')
const connectorCertificate = (): KeyAndCertificate => {
  const folder = path.dirname(
    globSync(path.join(home, 'edges', '*', 'connectors', '**', '*'), {}).find((file) => /cert/.test(file))!,
  )
  const text = globSync(path.join(folder, '*'))
    .map((file) => readFileSync(file, 'utf8'))
    .join('\n')
  const pem = (label: string) =>
    new RegExp(`-----BEGIN ${label}-----[^-]+-----END ${label}-----`).exec(text.replaceAll('\\n', '\n'))![0]
  return { cert: `${pem('CERTIFICATE')}\n`, key: `${pem('PRIVATE KEY')}\n` }
}

test('the right certificate passes, framed and plain', async () => {
  for (const alpn of [ALPN_FLOW, undefined]) {
    const result = await attempt(edge, {
      serverName: service.host,
      identity: good,
      ...(alpn ? { alpn } : {}),
    })
    assert.deepEqual(result, { bytes: 'hello', code: undefined })
  }
})

test('no certificate', async () => {
  await assertRefusedInHandshake(undefined)
})

test('a foreign CA, with the name of ours', async () => {
  await assertRefusedInHandshake(forgeCertificate({ subjectAltName: namesOf(good) }))
})

test('an expired certificate of our own CA', async () => {
  await assertRefusedInHandshake(
    forgeCertificate({ ca: caFiles('client'), subjectAltName: namesOf(good), days: -1 }),
  )
})

test('signed by our own CA, and unknown to the store', async () => {
  const code = await assertRefused(forgeCertificate({ ca: caFiles('client'), subjectAltName: namesOf(good) }))
  assert.equal(code, 'CERTIFICATE_REFUSED')
})

test('signed by our own CA for another use', async () => {
  await assertRefusedInHandshake(
    forgeCertificate({ ca: caFiles('client'), subjectAltName: namesOf(good), usage: 'serverAuth' }),
  )
})

test('a connector certificate, also when it brings its own CA along', async () => {
  const connector = connectorCertificate()
  assert.match(namesOf(connector), /\/connector\//)
  await assertRefusedInHandshake(connector)
  const ca = readFileSync(caFiles('connector').certificate, 'utf8')
  await assertRefusedInHandshake({ ...connector, cert: connector.cert + ca })
})

test('the certificate of another service says so, and a service that does not exist looks the same', async () => {
  assert.equal(await assertRefused(good, other.host), 'CERTIFICATE_WRONG_SERVICE')
  assert.equal(await assertRefused(good, 'no-such-1234.edge.localhost'), 'CERTIFICATE_WRONG_SERVICE')
})

test('a client certificate opens neither the control nor the data room', async () => {
  const control = await attempt(edge, { serverName: 'mtls.edge.localhost', identity: good })
  assert.equal(control.bytes, '')
  const data = await attempt(edge, { serverName: 'edge.localhost', alpn: ALPN_DATA, identity: good })
  assert.equal(data.bytes, '')
  assert.notEqual(data.code, undefined)
})

test('names and protocols that lead to no room are closed', async () => {
  for (const serverName of ['edge.localhost.evil', 'a.b.edge.localhost', 'www.edge.localhost', 'localhost']) {
    assert.equal((await attempt(edge, { serverName, identity: good })).bytes, '')
  }
  assert.equal((await attempt(edge, { serverName: service.host, alpn: 'h2', identity: good })).bytes, '')
})

test('no TLS session of a flow can be resumed, with its certificate or without', async () => {
  const first = dial(edge, { serverName: service.host, identity: good })
  const sessions: Buffer[] = []
  first.on('session', (session) => sessions.push(session))
  first.on('data', () => {})
  first.end('hello')
  await new Promise((resolve) => first.once('end', resolve))
  sessions.push(first.getSession()!)
  for (const session of sessions) {
    const again = dial(edge, { serverName: service.host, identity: good, session })
    await new Promise((resolve) => again.once('secureConnect', resolve))
    assert.equal(again.isSessionReused(), false)
    again.destroy()
    const alone = await attempt(edge, { serverName: service.host, session })
    assert.equal(alone.bytes, '')
  }
})

test('TLS 1.2 gets nowhere near a flow', async () => {
  const { execFileSync } = await import('node:child_process')
  assert.throws(() =>
    execFileSync(
      'openssl',
      ['s_client', '-tls1_2', '-connect', `127.0.0.1:${edge.port}`, '-servername', service.host],
      {
        input: '',
        stdio: 'pipe',
      },
    ),
  )
})
