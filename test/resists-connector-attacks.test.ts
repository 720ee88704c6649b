import assert from 'node:assert/strict'
import { createPrivateKey, createPublicKey, generateKeyPairSync, randomUUID } from 'node:crypto'
import { cpSync } from 'node:fs'
import path from 'node:path'
import { after, before, describe, test } from 'node:test'
import type { TLSSocket } from 'node:tls'
import { createCsr } from '@postern/shared/certs/csr'
import type { PosternError } from '@postern/shared/errors'
import type { FramedEnd } from '@postern/shared/stream/framed-end'
import type { ProgramResult } from '../demo/program.ts'
import { type ConnectedService, connectService, spawnConnect } from './support/connect-service.ts'
import {
  ATTACH,
  ConnectorPeer,
  forgetSessions,
  openData,
  readStoredConnectors,
  type StoredConnector,
} from './support/connector-peer.ts'
import { makePerson } from './support/dev-browser.ts'
import { type EdgeProcess, startEdge } from './support/edge-process.ts'
import { HeldFlow } from './support/held-flow.ts'
import { callApi, peerKeyOf, requestEdge, signInByHand, signJws } from './support/oauth-peer.ts'
import { runPostern } from './support/postern.ts'
import { startEcho, type TcpService } from './support/tcp-services.ts'
import { makeTempFolder } from './support/temp-folder.ts'
import { clientCertificateOf, forgeCertificate, type KeyAndCertificate } from './support/tls-peer.ts'
import { until, within } from './support/until.ts'

/** Connectors that lie, and copies of their keys. Through all of it a person works over another service. */

let edge: EdgeProcess
let echo: TcpService
let admin: string
let ann: string
let honest: ConnectedService
let work: HeldFlow
/** An operator's own connector, in the hands of somebody who speaks the protocol badly. */
let evil: Awaited<ReturnType<typeof attachPeer>>

before(async () => {
  edge = await startEdge({ keepsPort: true, config: { limits: { route_timeout: '5s' } } })
  echo = await startEcho()
  admin = await makePerson(edge, 'operator@mycorp.com')
  ann = await makePerson(edge, 'ann@mycorp.com')
  honest = await connect(ann, 'honest')
  assert.equal((await reach(ann, honest.host)).stdout, 'hello')
  work = new HeldFlow(edge, honest.host, clientCertificateOf(ann, honest.label))
  await work.echo('begun')
  evil = await attachPeer(await makePerson(edge, 'mallory@mycorp.com'), 'evil')
})
after(async () => {
  evil?.peer[Symbol.dispose]()
  work?.[Symbol.dispose]()
  await honest?.[Symbol.asyncDispose]()
  await echo?.[Symbol.asyncDispose]()
  await edge?.[Symbol.asyncDispose]()
})

const connect = (home: string, name: string) => connectService({ home, port: echo.port, name })
const reach = (home: string, host: string) =>
  runPostern(['client', 'tls', '--host', host], { home, stdin: 'hello' })

type Event = Record<string, unknown>

async function audit(type: string, home = admin): Promise<Event[]> {
  const args = ['audit', 'list', '--json', '--limit', '1000', '--type', type]
  const { code, stdout, stderr } = await runPostern(args, { home })
  assert.equal(code, 0, stderr)
  return stdout
    .split('\n')
    .filter(Boolean)
    .map((line) => JSON.parse(line))
}

const readStoredConnector = (home: string, label: string) => readStoredConnectors(home, label)[0]!

/** The one record that says whose key was in two hands. */
const superseded = (label: string) =>
  until(`the record of ${label}`, async () => {
    const records = (await audit('connector.superseded')).filter((record) => record.label === label)
    assert.ok(records.length < 2)
    return records[0]
  })

async function assertHonestUnharmed(): Promise<void> {
  await within('the other service goes on', work.echo(randomUUID()))
  assert.deepEqual(
    honest.events().filter(({ event }) => event === 'disconnected'),
    [],
  )
}

/** All that a thief, a backup or a cloned disk has of a connector. */
function copyConnector(home: string): string {
  const copy = makeTempFolder('copy')
  cpSync(path.join(home, 'edges'), path.join(copy, 'edges'), { recursive: true })
  forgetSessions(copy)
  return copy
}

/** A signed-in operator with a connector, and the name of its service. */
async function makeVictim(email: string, name: string) {
  const home = await makePerson(edge, email)
  return { home, name, connector: await connect(home, name) }
}

async function assertBothEnd(...connectors: { ended: Promise<{ code: number | null; stderr: string }> }[]) {
  for (const { ended } of connectors) {
    const { code, stderr } = await within('a process with the copied key ends', ended)
    assert.equal(code, 5, stderr)
    assert.match(stderr, /two processes .*key.* \(CONNECTOR_SUPERSEDED\)/)
    assert.match(stderr, /find the copy and remove its state folder/)
  }
}

describe('a copied connector key', () => {
  test('that attaches beside the real connector: both end, and the owner starts anew', async () => {
    const { home, name, connector } = await makeVictim('vera@mycorp.com', 'cloned')
    await using _real = connector
    const flow = new HeldFlow(edge, connector.host, await certificateFor(home, connector))
    await flow.echo('begun')
    const copyHome = copyConnector(home)
    await using copy = spawnConnect({ home: copyHome, port: echo.port, name, args: ['--batch'] })
    await assertBothEnd(connector.program, copy)
    await assert.rejects(flow.echo('more'), 'nobody knows who holds the other end')
    const record = await superseded(connector.label)
    // a machine so busy that the real one does not answer in 3 seconds shows it a renewal later
    assert.match(String(record.how), /^(attached|renewed)$/)
    assert.equal(record.email, 'vera@mycorp.com')
    assert.match(String(record.clientAddress), /^127\.0\.0\.1:\d+$/)
    assert.notEqual(record.attachedFrom, record.clientAddress)

    await using again = await connect(home, name)
    assert.equal(again.host, connector.host)
    assert.equal((await reach(home, again.host)).stdout, 'hello')
    await using late = spawnConnect({ home: copyHome, port: echo.port, name, args: ['--batch'] })
    assert.equal((await within('the copy gives up', late.ended)).code, 4, late.stderr)
    await assertHonestUnharmed()
  })

  test('that takes the place of a connector which hangs: it comes back, and both end', async () => {
    const { home, name, connector } = await makeVictim('hans@mycorp.com', 'stalled')
    await using _real = connector
    connector.program.signal('SIGSTOP')
    await using copy = await connect(copyConnector(home), name)
    connector.program.signal('SIGCONT')
    await assertBothEnd(connector.program, copy.program)
    assert.equal((await superseded(connector.label)).email, 'hans@mycorp.com')
    await assertHonestUnharmed()
  })

  test('that renews beside the real connector: both end', async () => {
    await using short = await startEdge({ config: { certificates: { connector_ttl: '6s' } } })
    const home = await makePerson(short, 'operator@mycorp.com')
    await using real = await connectService({ home, port: echo.port, name: 'renewed' })
    const stolen = readStoredConnector(home, real.label)
    const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
    const answer = await renew(short, stolen, createCsr(privateKey))
    assert.equal(answer.status, 201, answer.text)

    await assertBothEnd(real.program)
    const identity = {
      cert: answer.json.certificate,
      key: privateKey.export({ type: 'pkcs8', format: 'pem' }).toString(),
    }
    using copy = new ConnectorPeer(short, identity)
    assert.equal(await copy.refusal(), 'CONNECTOR_SUPERSEDED')
    const next = await renew(
      short,
      { ...stolen, identity, serial: answer.json.serial },
      createCsr(privateKey),
    )
    assert.equal(next.json.error.code, 'CONNECTOR_SUPERSEDED')
    const records = await audit('connector.superseded', home)
    assert.deepEqual(
      records.map(({ how, label, email }) => [how, label, email]),
      [['renewed', real.label, 'operator@mycorp.com']],
    )
  })

  test('is no suspicion against a connector that is killed and started again', async () => {
    const home = await makePerson(edge, 'carl@mycorp.com')
    const first = await connect(home, 'restarted')
    const { connectorId } = readStoredConnector(home, first.label)
    await first.kill9()
    forgetSessions(home)
    for (let restarts = 0; restarts < 3; restarts++) {
      await using again = await connect(home, 'restarted')
      assert.equal((await again.event('ready')).connectorId, connectorId)
      assert.equal((await reach(ann, again.host)).stdout, 'hello')
      await again.kill9()
    }
    const records = await audit('connector.superseded')
    assert.ok(!records.some((record) => record.connectorId === connectorId))
  })
})

async function certificateFor(home: string, { host, label }: ConnectedService) {
  assert.equal((await reach(home, host)).stdout, 'hello')
  return clientCertificateOf(home, label)
}

function renew(at: EdgeProcess, { identity, serial }: StoredConnector, csr: string) {
  const key = createPrivateKey(identity.key)
  const claims = { aud: at.origin, iat: Math.floor(Date.now() / 1_000), jti: randomUUID(), serial, csr }
  const jws = signJws(peerKeyOf(key, createPublicKey(key)), { typ: 'postern-renew+jwt' }, claims)
  return requestEdge(at, { path: '/v1/connectors/renew', body: { jws } })
}

/** A connector of the person's, as a peer that does as it is told. */
async function attachPeer(home: string, name: string) {
  const real = await connect(home, name)
  const { label, host } = real
  const stored = readStoredConnector(home, label)
  assert.equal(await real.stop(), 0)
  const peer = await new ConnectorPeer(edge, stored.identity).attached()
  return { peer, label, host, ...stored }
}

describe('a connector that reaches for what belongs to others', () => {
  test('registering for the service of another owner: it looks unknown', async () => {
    const session = await signInByHand(edge, 'mallory@mycorp.com')
    const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
    const serviceId = ((await honest.event('ready')).service as { id: string }).id
    const before = (await audit('certificate.issued')).length
    const body = { serviceId, csr: createCsr(privateKey), machine: 'evil' }
    const answer = await callApi(edge, session.key, session.accessToken, '/v1/connectors', body)
    assert.deepEqual([answer.status, answer.json.error.code], [404, 'SERVICE_UNKNOWN'])
    assert.equal((await audit('certificate.issued')).length, before)
    await assertHonestUnharmed()
  })

  test('a certificate that names its connector but is not of the store: refused', async () => {
    const { connectorId } = readStoredConnector(ann, honest.label)
    const forged = forgeCertificate({
      ca: {
        certificate: path.join(edge.dataDir, 'ca', 'connector-ca.pem'),
        key: path.join(edge.dataDir, 'ca', 'connector-ca.key'),
      },
      subjectAltName: `URI:postern://${edge.domain}/connector/${connectorId}`,
    })
    using peer = new ConnectorPeer(edge, forged)
    assert.equal(await peer.refusal(), 'CERTIFICATE_REFUSED')
    assert.equal(await peer.closed, 4403)
    await assertHonestUnharmed()
  })

  test('data connections for the attachment of another connector get none of its flows', async () => {
    await using _twin = await connect(ann, 'honest') // of the same service, with a key of its own
    const [first, twin] = readStoredConnectors(ann, honest.label)
    const { attachmentId } = (await audit('connector.attached')).findLast(
      ({ connectorId }) => connectorId === first!.connectorId,
    )!
    const { peer } = evil
    for (const identity of [evil.identity, twin!.identity]) {
      using thief = new DataThief(identity)
      assert.equal((await thief.ask(String(attachmentId))).code, 'CONNECTOR_REFUSED')
      assert.equal((await thief.ask('none')).code, 'CONNECTOR_REFUSED')
    }
    assert.ok(await peer.isHeard(), 'what it serves itself goes on')
    await assertHonestUnharmed()
  })

  /** Opens data connections with a certificate, for whichever attachment. */
  class DataThief implements Disposable {
    readonly #sockets: TLSSocket[] = []
    readonly #identity: KeyAndCertificate

    constructor(identity: KeyAndCertificate) {
      this.#identity = identity
    }

    /** How that ends. */
    ask(attachmentId: string): Promise<PosternError> {
      const { end, socket } = openData(edge, this.#identity, attachmentId)
      this.#sockets.push(socket)
      const cut = new Promise<PosternError>((resolve) => {
        end.receive({ chunk: () => {}, end: () => {}, drain: () => {}, cut: resolve })
        end.resume()
      })
      return within('the edge closes the data connection', cut)
    }

    [Symbol.dispose](): void {
      for (const socket of this.#sockets) socket.destroy()
    }
  }

  test('a label that its owner deleted: neither another operator nor an admin gets it, its owner does', async () => {
    const args = ['--label', 'anns-gate']
    const mine = await connectService({ home: ann, port: echo.port, name: 'gate', args: withAllow(args) })
    assert.equal((await runPostern(['service', 'delete', 'anns-gate'], { home: ann })).code, 0)
    assert.equal((await within('its connector ends', mine.program.ended)).code, 5)
    const created = (await audit('service.created')).length
    const mallory = await makePerson(edge, 'mallory@mycorp.com')
    for (const home of [mallory, admin]) {
      await using thief = spawnConnect({ home, port: echo.port, name: 'gate', args: withAllow(args) })
      const { code, stderr } = await within('the thief is refused', thief.ended)
      assert.equal(code, 1)
      assert.match(stderr, /LABEL_TAKEN/)
    }
    assert.equal((await audit('service.created')).length, created)
    await using again = await connectService({
      ...{ home: ann, port: echo.port, name: 'gate' },
      args: withAllow(args),
    })
    assert.equal(again.label, 'anns-gate')
    assert.equal((await audit('service.created')).length, created + 1)
  })
})

const withAllow = (args: readonly string[]) => [...args, '--allowed-email-domains', 'mycorp.com', '--batch']

describe('control messages', () => {
  const refusedFirst: [what: string, message: unknown][] = [
    ['no JSON', 'GET / HTTP/1.1'],
    ['bytes', Buffer.from(JSON.stringify(ATTACH))],
    ['another type', { ...ATTACH, type: 'attached' }],
    ['no version', { ...ATTACH, version: undefined }],
    ['version 0', { ...ATTACH, version: 0 }],
    ['an instance id that is no text', { ...ATTACH, instanceId: 7 }],
    ['an instance id of 129 characters', { ...ATTACH, instanceId: 'x'.repeat(129) }],
    ['a feature that nobody has', { ...ATTACH, requires: ['time-travel'] }],
  ]
  test('a first message that is malformed or asks too much: refused with PROTOCOL_INVALID', async () => {
    const { identity } = evil
    for (const [what, message] of refusedFirst) {
      using peer = new ConnectorPeer(edge, identity, message)
      assert.equal(await peer.refusal(), 'PROTOCOL_INVALID', what)
      assert.equal(await peer.closed, 4403, what)
    }
    await assertHonestUnharmed()
  })

  test('a first message that is too large: closed with 1009', async () => {
    using peer = new ConnectorPeer(edge, evil.identity, 'x'.repeat(65_537))
    assert.equal(await within('the edge closes', peer.closed), 1009)
  })

  test('an attach of a later version, with members nobody knows: attached, and told which version this is', async () => {
    evil.peer[Symbol.dispose]()
    const later = { ...ATTACH, version: 99, features: ['new'], more: { than: 'known' } }
    evil.peer = new ConnectorPeer(edge, evil.identity, later)
    const attached = await evil.peer.next('attached')
    assert.equal(attached.version, 1)
    evil.peer.attachmentId = String(attached.attachmentId)
  })

  test('later messages that are unknown, malformed or a second attach: ignored; too large: closed', async () => {
    const { peer } = evil
    const { length } = await audit('connector.attached')
    for (const message of ['{"type":"from-the-future"}', 'no JSON', '[]', Buffer.of(1, 2), ATTACH]) {
      peer.say(message)
    }
    assert.ok(await peer.isHeard())
    assert.equal((await audit('connector.attached')).length, length)
    peer.say('x'.repeat(65_537))
    assert.equal(await within('the edge closes', peer.closed), 1009)
    await until('the loss is recorded', async () =>
      (await audit('connector.lost')).some(({ attachmentId }) => attachmentId === peer.attachmentId),
    )
    await assertHonestUnharmed()
  })
})

describe('a connector that answers a flow with something else than ok', () => {
  const frame = (type: number, text: string) =>
    Buffer.concat([Buffer.of(type, 0, 0, Buffer.byteLength(text)), Buffer.from(text)])
  const OK = 3
  const ERROR = 4
  type Treat = (end: FramedEnd, socket: TLSSocket) => void
  const PLANTED = 'call 555-0100'

  /** What the flow's client is told, when the connector treats its flow so. */
  async function reachTreated(treats: Treat[]) {
    const peer = await new ConnectorPeer(edge, evil.identity).attached()
    using _peer = peer
    const queue = [...treats]
    peer.serve((end, socket) => queue.shift()!(end, socket))
    const clients = await Promise.all(treats.map(() => reach(ann, evil.host)))
    return clients
  }

  const cases: [what: string, code: string, Treat][] = [
    [
      'a code that is not for connectors, with a text',
      'FLOW_CUT',
      (_end, socket) =>
        socket.write(frame(ERROR, JSON.stringify({ code: 'ACCESS_DENIED', message: PLANTED }))),
    ],
    [
      'a code of its own making',
      'FLOW_CUT',
      (_end, socket) => socket.write(frame(ERROR, JSON.stringify({ code: PLANTED, message: '\u001b[2J' }))),
    ],
    [
      'a code that it may say, with a text and an address',
      'SERVICE_REFUSED',
      (_end, socket) =>
        socket.write(
          frame(ERROR, JSON.stringify({ code: 'SERVICE_REFUSED', message: PLANTED, hint: 'try 10.0.0.5' })),
        ),
    ],
    ['an ok that is no JSON', 'FLOW_CUT', (_end, socket) => socket.write(frame(OK, PLANTED))],
    ['an error that is no JSON', 'FLOW_CUT', (_end, socket) => socket.write(frame(ERROR, PLANTED))],
    ['the end of the connection', 'FLOW_CUT', (_end, socket) => socket.destroy()],
  ]
  for (const [what, code, treat] of cases) {
    test(`${what}: the client hears ${code} and nothing of the connector's`, async () => {
      const [client] = await reachTreated([treat])
      assertTold(client!, code)
      await untilClosed(code)
      await assertHonestUnharmed()
    })
  }

  test('text, silence, or frames of another kind: SERVICE_UNREACHABLE after the route timeout', async () => {
    const clients = await reachTreated([
      (_end, socket) => socket.write(`HTTP/1.1 200 OK\r\n\r\n${PLANTED}`),
      () => {},
      (end) => end.send('hello', { version: 1, attachmentId: PLANTED }),
    ])
    for (const client of clients) assertTold(client, 'SERVICE_UNREACHABLE')
    await untilClosed('SERVICE_UNREACHABLE')
    await assertHonestUnharmed()
  })

  function assertTold({ code, stdout, stderr }: ProgramResult, expected: string): void {
    assert.equal(code, 6, stderr)
    assert.match(stderr, new RegExp(`\\(${expected}\\)`))
    assert.equal(stdout, '')
    assert.doesNotMatch(stderr, /555-0100|10\.0\.0\.5|ACCESS_DENIED/)
    assert.ok(!stderr.includes('\u001b'))
  }

  const untilClosed = (code: string) =>
    until(`a flow is recorded as closed with ${code}`, async () =>
      (await audit('flow.closed')).some(
        (record) => record.label === evil.label && record.code === code && record.bytesDown === 0,
      ),
    )
})

describe('an operator who is none any more', () => {
  test('their connector is refused for good; the log has counted what was refused, and by whom', async () => {
    const home = await makePerson(edge, 'fired@mycorp.com')
    await using fired = await connect(home, 'fired')
    const { identity, connectorId } = readStoredConnector(home, fired.label)
    work[Symbol.dispose]()
    await edge.stop()
    edge = await startEdge({
      ...{ dataDir: edge.dataDir, port: edge.port },
      config: { operators: { email_addresses: ['ann@mycorp.com'] } },
    })
    const { code, stderr } = await within('the connector ends', fired.program.ended)
    assert.equal(code, 5)
    assert.match(stderr, /fired@mycorp\.com is no operator .*\(CONNECTOR_REFUSED\)/)
    await honest.event('reconnected')
    assert.equal((await reach(ann, honest.host)).stdout, 'hello')
    for (let knocks = 0; knocks < 50; knocks++) {
      using peer = new ConnectorPeer(edge, identity)
      assert.equal(await peer.refusal(), 'CONNECTOR_REFUSED')
    }
    await edge.stop() // writes the counts of the minute that runs
    edge = await startEdge({ dataDir: edge.dataDir, port: edge.port })

    const records = await audit('connector.refused')
    const sum = (wanted: string, has: (record: Event) => boolean = () => true) =>
      records
        .filter((record) => record.code === wanted && has(record))
        .reduce((total, { count }) => total + Number(count), 0)
    const names = (id: string) => (record: Event) => (record.connectorIds as string[]).includes(id)
    assert.ok(sum('CONNECTOR_REFUSED', names(connectorId)) >= 51)
    assert.ok(sum('CONNECTOR_REFUSED', names(evil.connectorId)) >= 1, 'another attachment was named')
    assert.ok(sum('CERTIFICATE_REFUSED') >= 1, 'the forged certificate')
    assert.ok(sum('PROTOCOL_INVALID') >= 8, 'malformed attach messages')
    const keys = records.map(({ code, since }) => `${code} ${since}`)
    const starts = 3 // of the edge: a minute that it was stopped in has one record from before and one from after
    for (const key of keys) assert.ok(keys.filter((other) => other === key).length <= starts, key)
    for (const record of records) assert.doesNotMatch(JSON.stringify(record), /the peer/)
  })
})
