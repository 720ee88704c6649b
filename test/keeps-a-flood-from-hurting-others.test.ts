import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import net, { type Socket } from 'node:net'
import { after, afterEach, before, describe, test } from 'node:test'
import type { TLSSocket } from 'node:tls'
import { lookupHost } from '@postern/shared/lookup-host'
import { WebSocket } from 'ws'
import { type ConnectedService, connectService } from './support/connect-service.ts'
import { makePerson } from './support/dev-browser.ts'
import { type EdgeProcess, startEdge } from './support/edge-process.ts'
import { HeldFlow } from './support/held-flow.ts'
import { METRICS_ON, readMetrics } from './support/metrics.ts'
import { makeProof, type PeerSession, requestEdge, signInByHand } from './support/oauth-peer.ts'
import { runPostern } from './support/postern.ts'
import { openStoreReader } from './support/store-reader.ts'
import { startEcho, type TcpService } from './support/tcp-services.ts'
import {
  attempt,
  clientCertificateOf,
  dial,
  forgeCertificate,
  type KeyAndCertificate,
} from './support/tls-peer.ts'
import { until, within } from './support/until.ts'

/** Strangers at one address, who take what they can get; people at others; and people behind the strangers' own. Each
 *  has an address of 127.0.0.0/8 for itself. */

const LIMITS = {
  max_pending_handshakes: 60,
  max_pending_handshakes_per_address: 20,
  failed_handshakes_per_minute: 60,
  max_http_connections: 40,
  max_http_connections_per_address: 10,
  failed_logins_per_minute: 10,
}
const ELSEWHERE = '127.0.0.2'
const NOBODYS_SIGN_IN = 'x'.repeat(24)

let edge: EdgeProcess
let echo: TcpService
let service: ConnectedService
let home: string
let identity: KeyAndCertificate
let session: PeerSession
let flow: HeldFlow

before(async () => {
  edge = await startEdge({ config: { metrics: METRICS_ON, limits: LIMITS } })
  echo = await startEcho()
  home = await makePerson(edge, 'operator@mycorp.com')
  service = await connectService({ home, port: echo.port })
  await runPostern(['client', 'tls', '--host', service.host], { home, stdin: 'hello' })
  identity = clientCertificateOf(home, service.label)
  session = await signInByHand(edge, 'ann@mycorp.com')
  flow = new HeldFlow(edge, service.host, identity)
  await flow.echo('before')
})
after(async () => {
  flow?.[Symbol.dispose]()
  await service?.[Symbol.asyncDispose]()
  await echo?.[Symbol.asyncDispose]()
  await edge?.[Symbol.asyncDispose]()
})

async function othersWork(): Promise<void> {
  await flow.echo(randomBytes(16).toString('hex'))
  await assertServed(ELSEWHERE)
}

async function limited(limit: string): Promise<number> {
  return (await readMetrics(edge)).get(`postern_address_limited_total{limit="${limit}"}`) ?? 0
}

const reach = (localAddress: string, shown: KeyAndCertificate | undefined = identity) =>
  attempt(edge, {
    serverName: service.host,
    alpn: 'postern/1',
    localAddress,
    ...(shown ? { identity: shown } : {}),
  })

async function assertServed(localAddress: string): Promise<void> {
  const { bytes, code } = await within(`a flow from ${localAddress}`, reach(localAddress))
  assert.deepEqual([bytes, code], ['hello', undefined])
}

/** Does the same over and over, `width` at a time, until it is disposed of. */
function flood(
  width: number,
  strike: () => Promise<unknown>,
): AsyncDisposable & { readonly strikes: number } {
  let isOver = false
  let strikes = 0
  const goOn = async () => {
    while (!isOver) {
      await strike()
      strikes++
    }
  }
  const striking = Promise.all(Array.from({ length: width }, goOn))
  return {
    get strikes() {
      return strikes
    },
    async [Symbol.asyncDispose]() {
      isOver = true
      await striking
    },
  }
}

const gone = (socket: Socket) =>
  socket.closed ? Promise.resolve() : new Promise<void>((resolve) => socket.once('close', () => resolve()))

function connect(localAddress: string): Socket {
  const socket = net.connect({ host: '127.0.0.1', port: edge.port, localAddress })
  return socket.on('error', () => {}).resume()
}

describe('a flood of handshakes', () => {
  afterEach(othersWork)

  test('silent connections of one address push out each other and nobody else', async () => {
    const address = '127.0.0.10'
    const [patient, impatient] = [connect('127.0.0.11'), connect(address)]
    await Promise.all([once(patient, 'connect'), once(impatient, 'connect')])
    // more than there is room for, but not so many failures that the address is shut out
    const crowd = Array.from({ length: LIMITS.max_pending_handshakes + 5 }, () => connect(address))
    await within('the oldest of that address goes', gone(impatient))
    const tooMany = 1 + crowd.length - LIMITS.max_pending_handshakes_per_address
    await until('all of them have come', async () => (await limited('pending_handshakes')) === tooMany)
    assert.equal(patient.closed, false)
    await assertServed(ELSEWHERE)
    await assertServed(address)
    for (const socket of [patient, ...crowd]) socket.destroy()
  })

  test('who fails over and over is no longer listened to, and everybody else is', async () => {
    const address = '127.0.0.20'
    const stolen = forgeCertificate({ subjectAltName: 'email:operator@mycorp.com' })
    const strikes = [
      () => reach(address, stolen),
      () => attempt(edge, { serverName: service.host, alpn: 'postern/1', localAddress: address }),
      () => gone(connect(address).end('GET / HTTP/1.1\r\n\r\n')),
    ]
    let next = 0
    await using strangers = flood(12, () => strikes[next++ % strikes.length]!())
    await until('the edge has had enough', async () => (await limited('failed_handshakes')) > 200)
    for (let time = 0; time < 10; time++) {
      await flow.echo(`meanwhile ${time}`)
      await assertServed(ELSEWHERE)
    }
    const refused = await reach(address)
    assert.deepEqual([refused.bytes, refused.code === undefined], ['', false])
    const { code, stderr } = await runPostern(['whoami'], { home })
    assert.equal(code, 0, stderr)
    assert.ok(strangers.strikes > 200)
  })

  test('a person who was there before goes on behind the same address', async () => {
    const address = '127.0.0.30'
    await assertServed(address)
    const refusedBefore = await countRefused()
    await using _strangers = flood(8, () =>
      attempt(edge, { serverName: service.host, alpn: 'postern/1', localAddress: address }),
    )
    await until('many more have failed than may', async () => {
      return (await countRefused()) > refusedBefore + 2 * LIMITS.failed_handshakes_per_minute
    })
    for (let time = 0; time < 5; time++) await assertServed(address)
  })
})

/** Handshakes without a certificate that were taken up and refused. */
async function countRefused(): Promise<number> {
  const name = 'postern_handshakes_refused_total{room="flow",reason="no_certificate"}'
  return (await readMetrics(edge)).get(name) ?? 0
}

async function closed(ws: WebSocket): Promise<void> {
  if (ws.readyState !== WebSocket.CLOSED) await once(ws, 'close')
}

async function assertAnswered(socket: TLSSocket): Promise<void> {
  const answered = once(socket, 'data')
  socket.write(`GET /v1/edge HTTP/1.1\r\nHost: ${edge.domain}:${edge.port}\r\n\r\n`)
  assert.match(String((await within('the answer', answered))[0]), /^HTTP\/1\.1 200 /)
}

describe('a flood of HTTP', () => {
  afterEach(othersWork)

  test('idle connections of one address push out each other and nobody else', async () => {
    const address = '127.0.0.40'
    const open = async (localAddress: string): Promise<TLSSocket> => {
      const socket = dial(edge, { serverName: edge.domain, alpn: 'http/1.1', localAddress })
      socket.on('error', () => {})
      await once(socket, 'secureConnect')
      return socket
    }
    const patient = await open(ELSEWHERE)
    const crowd: TLSSocket[] = []
    // one after another: at once they would have pushed out each other before they were connections of HTTP
    while (crowd.length < LIMITS.max_http_connections + 5) {
      if (crowd.length % 10 === 0) await assertAnswered(patient) // idle connections end by themselves
      crowd.push(await open(address))
    }
    const tooMany = crowd.length - LIMITS.max_http_connections_per_address
    await until('most of them have gone', async () => (await limited('http_connections')) === tooMany)
    const now = await readMetrics(edge)
    assert.ok(
      now.get('postern_http_connections{room="https"}')! <= LIMITS.max_http_connections_per_address + 1,
    )
    await assertAnswered(patient)
    for (const socket of [patient, ...crowd]) socket.destroy()
  })

  test('WebSockets of one address push out each other and nobody else', async () => {
    const address = '127.0.0.45'
    const url = `wss://${edge.domain}:${edge.port}/v1/transport`
    const open = async (localAddress: string): Promise<WebSocket> => {
      const ca = readFileSync(edge.caFile)
      const ws = new WebSocket(url, ['postern-transport.v1'], { localAddress, ca, lookup: lookupHost })
      ws.on('error', () => {})
      await within('it is open', once(ws, 'open'))
      return ws
    }
    const before = await limited('http_connections')
    const patient = await open(ELSEWHERE)
    const crowd: WebSocket[] = []
    while (crowd.length < LIMITS.max_http_connections_per_address + 5) crowd.push(await open(address))
    await within('the oldest of that address goes', closed(crowd[0]!))
    await until(
      'as many as were too many have gone',
      async () => (await limited('http_connections')) === before + 5,
    )
    assert.equal(patient.readyState, WebSocket.OPEN)
    await assertServed(address)
    for (const ws of [patient, ...crowd]) ws.terminate()
  })

  test('refused tokens and sign-ins are told to wait; a session and other addresses are not', async () => {
    const address = '127.0.0.50'
    const ask = (path: string, more = {}) => requestEdge(edge, { path, localAddress: address, ...more })
    const forged = { headers: { authorization: `DPoP ${'x'.repeat(43)}`, dpop: 'no proof' } }
    const answers = []
    for (let time = 0; time <= LIMITS.failed_logins_per_minute; time++)
      answers.push(await ask('/v1/session', forged))
    assert.deepEqual(
      answers.map(({ status, json }) => `${status} ${json.error.code}`),
      [...Array(LIMITS.failed_logins_per_minute).fill('401 DPOP_INVALID'), '429 RATE_LIMITED'],
    )
    assert.match(String(answers.at(-1)!.headers['retry-after']), /^[1-9]\d?$/)
    assert.match(answers.at(-1)!.json.error.hint, /^wait \d+ seconds/)

    const page = await ask(`/login/${NOBODYS_SIGN_IN}`)
    assert.equal(page.status, 429)
    assert.match(page.text, /RATE_LIMITED/)
    const token = await ask('/oauth/token', { body: new URLSearchParams({ grant_type: 'refresh_token' }) })
    assert.equal(token.status, 429)
    assert.ok((await limited('failed_logins')) >= 3)

    const elsewhere = await requestEdge(edge, {
      path: `/login/${NOBODYS_SIGN_IN}`,
      localAddress: ELSEWHERE,
    })
    assert.match(elsewhere.text, /LOGIN_FAILED/)
    assert.equal((await ask('/v1/edge')).status, 200)
    const { key, accessToken } = session
    const dpop = await makeProof(edge, key, { method: 'GET', path: '/v1/session', token: accessToken })
    const own = await ask('/v1/session', { headers: { authorization: `DPoP ${accessToken}`, dpop } })
    assert.equal(own.json.identity.email, 'ann@mycorp.com', own.text)
    // and from here on the address is one where somebody is known
    assert.match((await ask(`/login/${NOBODYS_SIGN_IN}`)).text, /LOGIN_FAILED/)
  })
})

test('the audit log has a handful of records of all that', async () => {
  const counted = new Map<string, number>()
  for (const [name, count] of await readMetrics(edge)) {
    const limit = /^postern_address_limited_total\{limit="(.*)"\}$/.exec(name)?.[1]
    if (limit !== undefined) counted.set(limit, count)
  }
  assert.equal(counted.size, 4)
  flow[Symbol.dispose]()
  await service.stop()
  await edge.stop()
  await using store = await openStoreReader(edge)
  const rows = await store.rows("select event from audit_events where type = 'address.limited'")
  const recorded = new Map<string, number>()
  for (const row of rows) {
    const { limit, code, count, clientAddresses } = JSON.parse(row.event)
    assert.equal(code, 'RATE_LIMITED')
    assert.ok(clientAddresses.length >= 1 && clientAddresses.length <= 10)
    recorded.set(limit, (recorded.get(limit) ?? 0) + count)
  }
  const [logins] = await store.rows(
    "select count(*) as rows from audit_events where type = 'request.refused' and code = 'RATE_LIMITED'",
  )
  assert.ok(Number(logins.rows) >= 1)
  counted.delete('failed_logins') // refused with words, so with an event like every request that is refused
  for (const [limit, count] of counted) assert.ok(recorded.get(limit)! >= count, `${limit}: ${count}`)
  assert.ok(rows.length + Number(logins.rows) <= 40, `${rows.length} records`)
})
