import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { globSync, readdirSync, readFileSync } from 'node:fs'
import net, { type Socket } from 'node:net'
import path from 'node:path'
import { Duplex } from 'node:stream'
import { after, afterEach, before, describe, test } from 'node:test'
import tls, { type TLSSocket } from 'node:tls'
import { type ConnectedService, connectService } from './support/connect-service.ts'
import { ConnectorPeer } from './support/connector-peer.ts'
import { makePerson } from './support/dev-browser.ts'
import { type EdgeProcess, startEdge } from './support/edge-process.ts'
import { HeldFlow } from './support/held-flow.ts'
import { METRICS_ON, readMetrics } from './support/metrics.ts'
import { runPostern } from './support/postern.ts'
import { startEcho, type TcpService } from './support/tcp-services.ts'
import { attempt, clientCertificateOf, dial, type KeyAndCertificate } from './support/tls-peer.ts'
import { until, within } from './support/until.ts'

/** Strangers who take what they can get, beside a hundred people who work. */

const GOOD_FLOWS = 100
const MAX_PENDING = 300
const MAX_HTTP = 150
const MAX_GROWTH_BYTES = 400 * 1024 * 1024
/** Descriptors of an edge at rest: a data connection that the connector replaces, and who reads the metrics. */
const COMING_AND_GOING = 4

let edge: EdgeProcess
let echo: TcpService
let service: ConnectedService
let home: string
let identity: KeyAndCertificate
let flows: HeldFlow[]
let descriptorsBefore: number
let memoryBefore: number

const countDescriptors = () => readdirSync(`/proc/${edge.pid}/fd`).length
const hello = () => attempt(edge, { serverName: service.host, alpn: 'postern/1', identity })

before(async () => {
  edge = await startEdge({
    config: {
      metrics: METRICS_ON,
      certificates: { ttl: '1h' }, // longer than all of this takes
      limits: {
        handshake_timeout: '8s',
        max_pending_handshakes: MAX_PENDING,
        max_http_connections: MAX_HTTP,
      },
    },
  })
  echo = await startEcho()
  home = await makePerson(edge, 'operator@mycorp.com')
  service = await connectService({ home, port: echo.port })
  await runPostern(['client', 'tls', '--host', service.host], { home, stdin: 'hello' })
  identity = clientCertificateOf(home, service.label)
  await until('nothing is left of the first flow', async () => (await metric('postern_flows_live')) === 0)
  descriptorsBefore = countDescriptors()
  memoryBefore = await metric('process_resident_memory_bytes')
  flows = Array.from({ length: GOOD_FLOWS }, () => new HeldFlow(edge, service.host, identity))
  await everybodyWorks()
})
afterEach(everybodyWorks)
after(async () => {
  for (const flow of flows ?? []) flow[Symbol.dispose]()
  await service?.[Symbol.asyncDispose]()
  await echo?.[Symbol.asyncDispose]()
  await edge?.[Symbol.asyncDispose]()
})

async function everybodyWorks(): Promise<void> {
  const text = randomBytes(16).toString('hex')
  await within('every good flow answers', Promise.all(flows.map((flow) => flow.echo(text))), 60_000)
}

async function metric(name: string): Promise<number> {
  return (await readMetrics(edge)).get(name) ?? 0
}

/** By how much the counters, together, have grown when the work is done. */
async function growthOf(names: readonly string[], work: () => Promise<unknown>): Promise<number> {
  const sum = async () => {
    const metrics = await readMetrics(edge)
    return names.reduce((total, name) => total + (metrics.get(name) ?? 0), 0)
  }
  const start = await sum()
  await work()
  return (await sum()) - start
}

const turnedAway = (...reasons: string[]) =>
  reasons.map((reason) => `postern_connections_turned_away_total{reason="${reason}"}`)
const refusedHttp = (reason: string, room = 'https') =>
  `postern_http_refused_total{room="${room}",reason="${reason}"}`

const gone = (socket: Socket | TLSSocket) =>
  socket.closed ? Promise.resolve() : new Promise<void>((resolve) => socket.once('close', () => resolve()))

async function connect(): Promise<Socket> {
  const socket = net.connect({ host: '127.0.0.1', port: edge.port })
  socket.on('error', () => {}).resume()
  await Promise.race([once(socket, 'connect'), gone(socket)])
  return socket
}

async function connectMany(count: number): Promise<Socket[]> {
  return Promise.all(Array.from({ length: count }, connect))
}

async function connectTls(serverName: string, who?: KeyAndCertificate): Promise<TLSSocket> {
  const socket = dial(edge, { serverName, alpn: 'http/1.1', ...(who ? { identity: who } : {}) })
  socket.on('error', () => {})
  socket.on('end', () => socket.destroy())
  await Promise.race([once(socket, 'secureConnect'), gone(socket)])
  return socket
}

/** What the socket said until it was closed. */
async function lastWords(socket: TLSSocket): Promise<string> {
  let text = ''
  socket.on('data', (chunk) => {
    text += chunk
  })
  await gone(socket)
  return text
}

describe('on the port', () => {
  test('2,000 silent sockets: bounded in number and time, and people still come in', async () => {
    const counted = await growthOf(turnedAway('too_many', 'late', 'left'), async () => {
      const silent = await connectMany(2_000)
      const [{ bytes }, pending] = await Promise.all([hello(), metric('postern_handshakes_pending')])
      assert.equal(bytes, 'hello')
      assert.ok(pending <= MAX_PENDING, `${pending} are pending`)
      await everybodyWorks()
      await within('all of them are closed', Promise.all(silent.map(gone)), 60_000)
    })
    assert.ok(counted >= 2_000, `${counted} were counted`)
  })

  test('200 sockets that send garbage are closed at once', async () => {
    const counted = await growthOf(turnedAway('malformed', 'too_large'), async () => {
      const sockets = await connectMany(200)
      for (const [index, socket] of sockets.entries()) {
        const garbage = randomBytes(4_096)
        if (index % 4 === 0) garbage.write('SSH-2.0-OpenSSH_9.2\r\n')
        if (index % 4 === 1) garbage.write('GET / HTTP/1.1\r\n\r\n')
        if (index % 4 === 2) garbage.set([22, 3, 1, 0x0f, 0xf0, 9]) // a record, but of no ClientHello
        if (index % 4 === 3) garbage[0] = 0x80
        socket.write(garbage)
      }
      await within('all of them are closed', Promise.all(sockets.map(gone)))
    })
    assert.equal(counted, 200)
  })

  test('a ClientHello that comes byte by byte is a ClientHello', async () => {
    const said = await Promise.all(Array.from({ length: 5 }, helloByteByByte))
    assert.deepEqual(said, Array(5).fill('hello'))
  })

  test('a ClientHello of 64 KiB is not read to its end', async () => {
    const counted = await growthOf(turnedAway('too_large'), async () => {
      const sockets = await connectMany(50)
      for (const socket of sockets) socket.write(hugeClientHello())
      await within('all of them are closed', Promise.all(sockets.map(gone)))
    })
    assert.equal(counted, 50)
  })
})

/** Four records of a handshake message that announces 64 KiB. */
function hugeClientHello(): Buffer {
  const record = Buffer.alloc(5 + 16_384)
  record.set([22, 3, 1, 0x40, 0])
  const first = Buffer.from(record)
  first.set([1, 0, 0xff, 0xf0], 5)
  return Buffer.concat([first, record, record, record])
}

/** A flow over a connection that sends every byte of the client's handshake by itself. */
async function helloByteByByte(): Promise<string> {
  const socket = net.connect({ host: '127.0.0.1', port: edge.port, noDelay: true })
  const slow = new Duplex({
    read: () => void socket.resume(),
    write(chunk: Buffer, _encoding, done) {
      const sendNext = (at: number) => {
        if (at === chunk.length || socket.destroyed) return done()
        socket.write(chunk.subarray(at, at + 1))
        setImmediate(sendNext, at + 1)
      }
      sendNext(0)
    },
    final: (done) => void socket.end(done),
    destroy(error, done) {
      socket.destroy()
      done(error)
    },
  })
  socket.on('data', (chunk) => slow.push(chunk)).on('end', () => slow.push(null))
  const client = tls.connect({
    socket: slow,
    servername: service.host,
    ca: readFileSync(edge.caFile),
    ...identity,
  })
  client.write('hello')
  const [bytes] = (await within('the echo', once(client, 'data'))) as [Buffer]
  client.destroy()
  return bytes.toString()
}

describe('in the rooms of HTTP', () => {
  test('endless headers end with 431', async () => {
    const counted = await growthOf([refusedHttp('headers_too_large')], async () => {
      const sockets = await Promise.all(Array.from({ length: 20 }, () => connectTls(edge.domain)))
      const answers = sockets.map((socket) => {
        const more = () => {
          while (!socket.destroyed && socket.write(`X-More: ${'x'.repeat(1_000)}\r\n`));
        }
        socket.write(`GET /v1/edge HTTP/1.1\r\nHost: ${edge.domain}:${edge.port}\r\n`)
        socket.on('drain', more)
        more()
        return lastWords(socket)
      })
      await within('all of them are closed', Promise.all(answers))
    })
    assert.equal(counted, 20)
  })

  test('JSON bodies of 10 MiB are not read to their end', async () => {
    const body = Buffer.alloc(10 * 1024 * 1024, 0x20)
    const post = async (target: string) => {
      const socket = await connectTls(edge.domain)
      const words = lastWords(socket)
      const host = `Host: ${edge.domain}:${edge.port}`
      const type = /token/.test(target) ? 'application/x-www-form-urlencoded' : 'application/json'
      socket.write(
        `POST ${target} HTTP/1.1\r\n${host}\r\nContent-Type: ${type}\r\nContent-Length: ${body.length}\r\n\r\n`,
      )
      socket.write(body)
      return words
    }
    const counted = await growthOf(['postern_api_refused_total{code="REQUEST_TOO_LARGE"}'], async () => {
      const targets = Array.from({ length: 20 }, (_, index) =>
        index % 2 === 0 ? '/v1/connectors/renew' : '/oauth/token',
      )
      await within('all of them are closed', Promise.all(targets.map(post)), 60_000)
    })
    assert.equal(counted, 20)
    const memory = await metric('process_resident_memory_bytes')
    assert.ok(
      memory - memoryBefore < MAX_GROWTH_BYTES,
      `the edge has grown by ${memory - memoryBefore} bytes`,
    )
  })

  test('slow writers and slow readers are given up', async () => {
    const open = (count: number) => Promise.all(Array.from({ length: count }, () => connectTls(edge.domain)))
    const [heads, bodies, readers] = [await open(20), await open(20), await open(20)]
    const host = `Host: ${edge.domain}:${edge.port}`
    const late = await growthOf([refusedHttp('late'), refusedHttp('stalled')], async () => {
      for (const socket of heads) socket.resume().write(`GET /v1/edge HTTP/1.1\r\n${host}\r\n`)
      for (const socket of bodies)
        socket.resume().write(`POST /v1/connectors/renew HTTP/1.1\r\n${host}\r\nContent-Length: 100\r\n\r\n{`)
      for (const socket of readers) {
        socket.pause()
        const ask = () => {
          while (!socket.destroyed && socket.write(`GET /v1/edge HTTP/1.1\r\n${host}\r\n\r\n`.repeat(100)));
        }
        socket.on('drain', ask)
        ask()
      }
      assert.ok((await metric('postern_http_connections{room="https"}')) >= 40) // Node ends who asks on and on at once
      await until(
        'the edge has given all of them up',
        async () => (await metric('postern_http_connections{room="https"}')) === 0,
        300_000,
      )
      for (const socket of readers) socket.destroy()
    })
    assert.ok(late >= 60, `${late} of 60 were counted`)
  })

  test('idle connections make room for new ones', async () => {
    const counted = await growthOf([refusedHttp('too_many')], async () => {
      const sockets: TLSSocket[] = []
      for (let round = 0; round < 6; round++)
        sockets.push(...(await Promise.all(Array.from({ length: 50 }, () => connectTls(edge.domain)))))
      assert.ok((await metric('postern_http_connections{room="https"}')) <= MAX_HTTP)
      const { code, stderr } = await runPostern(['whoami'], { home })
      assert.equal(code, 0, stderr)
      for (const socket of sockets) socket.destroy()
    })
    assert.ok(counted >= 150, `${counted} made room`)
  })
})

/** WebSockets that strangers may have open at once; all of them come from one address here. */
const MAX_STRANGERS = 512

describe('inside WebSockets', () => {
  const refused = (...reasons: string[]) =>
    reasons.map((reason) => `postern_transport_refused_total{reason="${reason}"}`)
  const open = () => metric('postern_transport_connections')

  test('600 that say nothing, and stay when they are told to go: bounded in number and time', async () => {
    const counted = await growthOf(refused('too_many_of_address', 'stalled'), async () => {
      const silent = await openMany(600)
      assert.ok((await open()) <= MAX_STRANGERS)
      assert.ok((await metric('postern_handshakes_pending')) <= MAX_PENDING)
      assert.equal((await hello()).bytes, 'hello')
      await everybodyWorks()
      await within('all of them are closed', Promise.all(silent.map(gone)), 60_000)
    })
    assert.equal(counted, 600)
  })

  test('garbage, huge messages, and messages in thousands of parts are ended at once', async () => {
    const strikes: Buffer[] = [
      Buffer.alloc(4_096, 0xff), // no frame
      frame(0x81, Buffer.from('over')), // a text, but not of this protocol
      frame(0x82, randomBytes(4_096)), // bytes, but no ClientHello
      Buffer.from([0x82, 0xff, 0, 0, 0, 1, 0, 0, 0, 0, 1, 2, 3, 4]), // announces 4 GiB
      Buffer.concat([frame(0x02, Buffer.of(22)), ...Array(2_000).fill(frame(0x00, Buffer.of(22)))]),
      frame(0x82, hugeClientHello()),
    ]
    const sockets = await openMany(strikes.length * 20)
    for (const [index, socket] of sockets.entries()) socket.write(strikes[index % strikes.length]!)
    await within('all of them are closed', Promise.all(sockets.map(gone)), 60_000)
    assert.equal(await open(), 0)
  })

  test('those that ask for pongs and do not read them, or send without end what nobody wants, take no room', async () => {
    const sockets = await openMany(40)
    const pings = Buffer.concat(Array(1_000).fill(frame(0x89, randomBytes(125))))
    const empty = Buffer.concat(Array(10_000).fill(frame(0x82, Buffer.alloc(0))))
    const crumbs = Buffer.concat([
      frame(0x02, Buffer.alloc(0)),
      ...Array(200).fill(frame(0x00, Buffer.of(22))),
    ])
    for (const [index, socket] of sockets.entries()) {
      const bytes = [pings, empty, crumbs, Buffer.alloc(65_536)][index % 4]!
      socket.pause() // nobody reads
      const more = () => {
        while (!socket.destroyed && socket.write(bytes));
      }
      socket.on('drain', more)
      more()
    }
    await until('the edge has given all of them up', async () => (await open()) === 0, 60_000)
    for (const socket of sockets) socket.destroy()
    const memory = await metric('process_resident_memory_bytes')
    assert.ok(
      memory - memoryBefore < MAX_GROWTH_BYTES,
      `the edge has grown by ${memory - memoryBefore} bytes`,
    )
    assert.equal((await hello()).bytes, 'hello')
  })
})

/** A frame of a WebSocket's client, with a mask of zeros. */
function frame(first: number, payload: Buffer): Buffer {
  const { length } = payload
  const long = Buffer.from([first, 0xff, ...Array(8).fill(0)])
  long.writeUInt32BE(length, 6)
  const head = length < 126 ? Buffer.of(first, 0x80 | length) : long
  return Buffer.concat([head, Buffer.alloc(4), payload])
}

async function openMany(count: number): Promise<TLSSocket[]> {
  const sockets: TLSSocket[] = []
  while (sockets.length < count) {
    const some = Array.from({ length: Math.min(20, count - sockets.length) }, async () => {
      const socket = await connectTls(edge.domain)
      return openWebSocket(socket, edge.domain, '/v1/transport', 'postern-transport.v1')
    })
    sockets.push(...(await Promise.all(some)))
  }
  return sockets
}

test('1,000 control messages that never end, a connection each: eight are open, and no other connector is hurt', async () => {
  await using other = await connectService({ home, port: echo.port, name: 'other' })
  const certificate = connectorCertificate()
  await other.stop()
  const crowdedOut = await growthOf(['postern_control_crowded_out_total'], async () => {
    const sockets: TLSSocket[] = []
    for (let round = 0; round < 10; round++)
      sockets.push(...(await Promise.all(Array.from({ length: 100 }, () => openControl(certificate)))))
    const [open, memory] = [
      await metric('postern_control_connections'),
      await metric('process_resident_memory_bytes'),
    ]
    assert.ok(open <= 9, `${open} control connections`)
    assert.ok(
      memory - memoryBefore < MAX_GROWTH_BYTES,
      `the edge has grown by ${memory - memoryBefore} bytes`,
    )
    await within('those that never attach are given up', Promise.all(sockets.map(gone)), 60_000)
  })
  assert.ok(crowdedOut >= 992, `${crowdedOut} were crowded out`)
  assert.equal((await hello()).bytes, 'hello')
})

test('1,000 control messages at once, and one in pieces without end: ignored, and closed when it is too large', async () => {
  await using other = await connectService({ home, port: echo.port, name: 'talkative' })
  const certificate = connectorCertificate()
  await other.stop()
  using peer = await new ConnectorPeer(edge, certificate).attached()
  for (let number = 0; number < 1_000; number++)
    peer.say({ type: 'forecast', number, text: 'x'.repeat(10_000) })
  assert.ok(await peer.isHeard())
  const piece = 'x'.repeat(1_000)
  for (let sent = 0; sent < 100; sent++) peer.ws.send(piece, { fin: false })
  assert.equal(await within('the edge closes', peer.closed), 1009)
  const memory = await metric('process_resident_memory_bytes')
  assert.ok(memory - memoryBefore < MAX_GROWTH_BYTES, `the edge has grown by ${memory - memoryBefore} bytes`)
})

/** Of the connector that started last. */
function connectorCertificate(): KeyAndCertificate {
  const files = globSync(path.join(home, 'edges', '*', 'connectors', '**', '*'), {})
  const all = files
    .filter((file) => /cert/.test(file))
    .map((file) => JSON.parse(readFileSync(file, 'utf8')) as Record<string, string>)
  const { keyPem, certificatePem } = all.toSorted((a, b) => Number(a.notBefore) - Number(b.notBefore)).at(-1)!
  return { key: keyPem!, cert: certificatePem! }
}

/** The first half of a text message of 60,000 bytes. */
const OPEN_MESSAGE = Buffer.concat([
  Buffer.of(0x81, 0x80 | 126, 0xea, 0x60, 0, 0, 0, 0),
  Buffer.alloc(30_000, 'x'),
])

/** A WebSocket that has begun to say something, and does not end it. */
async function openControl(who: KeyAndCertificate): Promise<TLSSocket> {
  const host = `mtls.${edge.domain}`
  const socket = await connectTls(host, who)
  await openWebSocket(socket, host, '/v1/connector', 'postern-connector.v1')
  socket.write(OPEN_MESSAGE)
  return socket
}

/** Upgrades a connection, and drops what comes back. */
async function openWebSocket(
  socket: TLSSocket,
  host: string,
  target: string,
  protocol: string,
): Promise<TLSSocket> {
  socket.write(
    [
      `GET ${target} HTTP/1.1`,
      `Host: ${host}:${edge.port}`,
      'Connection: Upgrade',
      'Upgrade: websocket',
      'Sec-WebSocket-Version: 13',
      `Sec-WebSocket-Key: ${randomBytes(16).toString('base64')}`,
      `Sec-WebSocket-Protocol: ${protocol}`,
      '\r\n',
    ].join('\r\n'),
  )
  await Promise.race([once(socket, 'data'), gone(socket)])
  return socket.resume()
}

test('afterwards nothing is left of any of it', async () => {
  await everybodyWorks()
  assert.equal(await metric('postern_flows_live'), GOOD_FLOWS)
  for (const flow of flows) flow[Symbol.dispose]()
  flows = []
  await until(
    'the descriptors are back',
    () => countDescriptors() <= descriptorsBefore + COMING_AND_GOING,
    120_000,
  )
  for (const name of [
    ...['postern_flows_live', 'postern_handshakes_pending', 'postern_audit_waiting'],
    'postern_transport_connections',
  ])
    await until(`${name} is back at 0`, async () => (await metric(name)) === 0, 120_000)
  assert.equal((await hello()).bytes, 'hello')
})
