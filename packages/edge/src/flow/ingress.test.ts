import assert from 'node:assert/strict'
import { once } from 'node:events'
import { readdirSync, readFileSync } from 'node:fs'
import net, { type AddressInfo, type Socket } from 'node:net'
import { afterEach, beforeEach, describe, it } from 'node:test'
import { writeLocalHeader, writeProxyHeader } from '@postern/shared/proxy-protocol/header'
import { Heard, TestLog } from '../../test/edge-stage.ts'
import type { EdgeLimits } from '../config/config.ts'
import { Strangers } from '../limits/strangers.ts'
import { type Arrival, type Ingress, openIngress, type TurnedAway } from './ingress.ts'

const HELLO = Buffer.from(
  JSON.parse(readFileSync(new URL('../../vectors/client-hello.json', import.meta.url), 'utf8'))[0].hex,
  'hex',
)
const LIMITS = {
  handshakeTimeoutMs: 10_000,
  maxClientHelloBytes: 16_384,
  maxPendingHandshakes: 100,
  maxPendingHandshakesPerAddress: 100,
  failedHandshakesPerMinute: 100,
  failedLoginsPerMinute: 100,
}

let ingress: Ingress
let log: TestLog
let heard: Heard
let arrivals: Arrival[]
let hasRoom: boolean
let strangers: Strangers
let limited: string[]

async function open(limits: Partial<EdgeLimits> = {}, acceptProxyProtocol: string[] = []): Promise<void> {
  log = new TestLog()
  heard = new Heard()
  arrivals = []
  hasRoom = true
  const room = {
    name: 'test',
    enter(arrival: Arrival) {
      arrivals.push(arrival)
      heard.tell()
    },
  }
  limited = []
  const onLimited = (limit: string, address: string) => void limited.push(`${limit} ${address}`)
  strangers = new Strangers({ limits: { ...LIMITS, ...limits }, onLimited })
  ingress = openIngress({
    chooseRoom: () => (hasRoom ? room : undefined),
    acceptProxyProtocol,
    limits: { ...LIMITS, ...limits } as EdgeLimits,
    strangers,
    onLimited,
    log,
  })
  ingress.server.listen(0, '127.0.0.1')
  await once(ingress.server, 'listening')
}

async function connect(localAddress = '127.0.0.1'): Promise<Socket> {
  const { port } = ingress.server.address() as AddressInfo
  const socket = net.connect({ port, host: '127.0.0.1', noDelay: true, localAddress })
  socket.on('error', () => {})
  await once(socket, 'connect')
  return socket
}

const arrival = () =>
  heard.until(
    () => arrivals.shift(),
    () => 'an arrival',
  )
const closed = (socket: Socket) =>
  new Promise<void>((resolve) => {
    if (socket.closed) return resolve()
    socket.once('close', () => resolve())
    socket.resume()
  })

async function assertTurnedAway(socket: Socket, reason: TurnedAway): Promise<void> {
  await closed(socket)
  assert.deepEqual([...ingress.turnedAway], [[reason, 1]])
}

describe('ingress', () => {
  beforeEach(() => open())
  afterEach(() => {
    void ingress.close()
    ingress.destroyAll()
  })

  it('hands on a connection with every byte it has read', async () => {
    const client = await connect()
    client.write(Buffer.concat([HELLO, Buffer.from('and more')]))
    const { socket, hello, clientAddress, clientHost } = await arrival()
    assert.deepEqual(hello.alpn, ['postern/1'])
    assert.equal(clientHost, '127.0.0.1')
    assert.equal(clientAddress, `127.0.0.1:${client.localPort}`)
    const bytes: Buffer[] = []
    socket.on('data', (chunk: Buffer) => bytes.push(chunk))
    client.end('and the last')
    await once(socket, 'end')
    assert.equal(
      Buffer.concat(bytes).toString('hex'),
      Buffer.concat([HELLO, Buffer.from('and moreand the last')]).toString('hex'),
    )
    assert.equal(ingress.turnedAway.size, 0)
  })

  it('reads a hello that comes byte by byte', async () => {
    const client = await connect()
    for (const byte of HELLO) client.write(Buffer.of(byte))
    const { socket } = await arrival()
    socket.destroy()
  })

  it('hands on a hello whose sender has ended at once: half-close is the room’s matter', async () => {
    const client = await connect()
    client.end(HELLO)
    const { socket } = await arrival()
    socket.resume()
    await once(socket, 'end')
    assert.equal(socket.writable, true)
  })

  it('closes what is no ClientHello', async () => {
    const client = await connect()
    client.write('GET / HTTP/1.1\r\n\r\n')
    await assertTurnedAway(client, 'malformed')
  })

  it('closes what has no room', async () => {
    hasRoom = false
    const client = await connect()
    client.write(HELLO)
    await assertTurnedAway(client, 'no_room')
  })

  it('closes its side when the other leaves before its hello is whole', async () => {
    const client = await connect()
    client.end(HELLO.subarray(0, 100))
    await assertTurnedAway(client, 'left')
  })

  it('notices a reset before the hello is whole', async () => {
    const client = await connect()
    client.write(HELLO.subarray(0, 100))
    const turnedAway = log.until('ingress.turned_away')
    client.resetAndDestroy()
    assert.deepEqual(await turnedAway, { reason: 'left' })
  })

  it('goes on when a connection cannot be accepted', async () => {
    for (let times = 0; times < 2; times++) ingress.server.emit('error', new Error('accept EMFILE'))
    assert.equal(log.events('ingress.accept_failed').length, 2)
    const client = await connect()
    client.write(HELLO)
    await arrival()
  })

  it('leaves no descriptor behind', async () => {
    const countFds = () => readdirSync('/proc/self/fd').length
    const before = countFds()
    const clients = await Promise.all(Array.from({ length: 60 }, () => connect()))
    for (const [index, client] of clients.entries()) {
      if (index % 3 === 0) client.end(HELLO.subarray(0, 5))
      if (index % 3 === 1) client.resetAndDestroy()
      if (index % 3 === 2) client.write('x')
    }
    await Promise.all(clients.map(closed))
    const emptied = new Promise<void>((resolve) => {
      const look = () =>
        ingress.server.getConnections((_error, count) => (count === 0 ? resolve() : setImmediate(look)))
      look()
    })
    await emptied
    assert.ok(countFds() <= before)
  })
})

describe('ingress under pressure', () => {
  afterEach(() => {
    void ingress.close()
    ingress.destroyAll()
  })

  it('closes a hello that is late', async () => {
    await open({ handshakeTimeoutMs: 50 })
    const client = await connect()
    client.write(HELLO.subarray(0, 100))
    await assertTurnedAway(client, 'late')
  })

  it('closes a hello that is too large', async () => {
    await open({ maxClientHelloBytes: 4_096 })
    const client = await connect()
    client.write(Buffer.concat([Buffer.from([22, 3, 1, 0x40, 0, 1, 0, 0xff, 0xff]), Buffer.alloc(5_000)]))
    await assertTurnedAway(client, 'too_large')
  })

  it('lets the oldest go when too many are pending, so that silent ones lock nobody out', async () => {
    await open({ maxPendingHandshakes: 2 })
    const silent = await connect()
    const slow = await connect()
    slow.write(HELLO.subarray(0, 100))
    const honest = await connect()
    honest.write(HELLO)
    const entered = await arrival()
    await closed(silent)
    assert.deepEqual([...ingress.turnedAway], [['too_many', 1]])
    slow.write(HELLO.subarray(100))
    await arrival()
    entered.handshakeDone()
  })

  it('lets who has not begun go before who is in a handshake', async () => {
    await open({ maxPendingHandshakes: 2 })
    const first = await connect()
    first.write(HELLO)
    const begun = await arrival()
    const silent = await connect()
    await connect()
    await closed(silent)
    assert.equal(begun.socket.destroyed, false)
    assert.deepEqual([...ingress.turnedAway], [['too_many', 1]])
  })

  it('counts a connection as pending until its handshake is done', async () => {
    await open({ maxPendingHandshakes: 1 })
    const first = await connect()
    first.write(HELLO)
    const stalled = await arrival()
    const second = await connect()
    second.write(HELLO)
    await closed(first)
    assert.equal(stalled.socket.destroyed, true)
    const done = await arrival()
    done.handshakeDone()
    const third = await connect()
    third.write(HELLO)
    await arrival()
    assert.equal(done.socket.destroyed, false)
    assert.equal(ingress.turnedAway.get('too_many'), 1)
  })

  it('lets a crowd of one address push out its own', async () => {
    await open({ maxPendingHandshakes: 3, maxPendingHandshakesPerAddress: 2 })
    const other = await connect('127.0.0.2')
    const crowd = [await connect(), await connect(), await connect()]
    await closed(crowd[0]!)
    assert.deepEqual([...ingress.turnedAway], [['too_many_of_address', 1]])
    assert.deepEqual(limited, ['pending_handshakes 127.0.0.1'])
    other.write(HELLO)
    const honest = await arrival()
    assert.equal(honest.clientHost, '127.0.0.2')
    crowd[2]!.write(HELLO)
    assert.equal((await arrival()).clientHost, '127.0.0.1')
  })

  it('takes no handshake of an address where too many have failed, before or in a room', async () => {
    await open({ failedHandshakesPerMinute: 3 })
    for (let good = 0; good < 5; good++) {
      const client = await connect()
      client.write(HELLO)
      const { socket, handshakeDone } = await arrival()
      handshakeDone()
      socket.destroy()
      await closed(client)
    }
    for (let bad = 0; bad < 2; bad++) {
      const client = await connect()
      client.write('GET / HTTP/1.1\r\n\r\n')
      await closed(client)
    }
    const inRoom = await connect()
    inRoom.write(HELLO)
    const { socket } = await arrival()
    socket.destroy()
    await closed(inRoom)
    await closed(await connect())
    assert.deepEqual(
      [...ingress.turnedAway],
      [
        ['malformed', 2],
        ['failed_too_often', 1],
      ],
    )
    assert.deepEqual(limited, ['failed_handshakes 127.0.0.1'])
    const other = await connect('127.0.0.2')
    other.write(HELLO)
    assert.equal((await arrival()).clientHost, '127.0.0.2')
    strangers.welcome('127.0.0.1')
    const known = await connect()
    known.write(HELLO)
    assert.equal((await arrival()).clientHost, '127.0.0.1')
  })

  it('stops listening, ends the pending ones at once, and waits for the others', async () => {
    await open()
    const pending = await connect()
    const client = await connect()
    client.write(HELLO)
    const { socket, handshakeDone } = await arrival()
    handshakeDone()
    const closing = ingress.close()
    await closed(pending)
    assert.equal(socket.destroyed, false)
    await assert.rejects(connect())
    socket.destroy()
    await closing
  })
})

describe('ingress behind a balancer', () => {
  const CLIENT = { host: '203.0.113.7', port: 50_514 }
  const EDGE = { host: '198.51.100.1', port: 443 }
  const HEADER = writeProxyHeader(CLIENT, EDGE)
  const BALANCER = ['127.0.0.2', '10.0.0.0/8']
  beforeEach(() => open({}, BALANCER))
  afterEach(async () => {
    ingress.destroyAll()
    await ingress.close()
  })

  /** Whether it has been closed, and why. */
  const turnedAway = async (socket: Socket, reason: TurnedAway, count = 1) => {
    await closed(socket)
    assert.equal(ingress.turnedAway.get(reason), count, [...ingress.turnedAway].join())
  }

  it('takes the addresses of the header for those of the connection, and leaves the hello', async () => {
    const socket = await connect('127.0.0.2')
    socket.write(Buffer.concat([HEADER, HELLO]))
    const { clientAddress, clientHost, clientPort, edgeAddress, socket: arrived } = await arrival()
    assert.deepEqual(
      [clientAddress, clientHost, clientPort, edgeAddress],
      ['203.0.113.7:50514', '203.0.113.7', 50_514, '198.51.100.1:443'],
    )
    assert.deepEqual(arrived.read(), HELLO)
  })

  it('reads a header that comes byte by byte', async () => {
    const socket = await connect('127.0.0.2')
    for (const byte of Buffer.concat([HEADER, HELLO])) {
      socket.write(Buffer.of(byte))
      await new Promise((resolve) => setImmediate(resolve))
    }
    assert.equal((await arrival()).clientAddress, '203.0.113.7:50514')
  })

  it('takes the balancer for the client where it speaks for itself', async () => {
    const socket = await connect('127.0.0.2')
    socket.write(Buffer.concat([writeLocalHeader(), HELLO]))
    assert.equal((await arrival()).clientHost, '127.0.0.2')
  })

  it('refuses a named balancer without a header, or with one that is none', async () => {
    const version1 = Buffer.from('PROXY TCP4 203.0.113.7 198.51.100.1 50514 443\r\n')
    const wrong = Buffer.from(HEADER)
    wrong[13] = 0x12
    for (const [index, bytes] of [HELLO, version1, wrong].entries()) {
      const socket = await connect('127.0.0.2')
      socket.write(Buffer.concat([bytes, HELLO]))
      await turnedAway(socket, 'proxy_header', index + 1)
    }
    assert.equal(arrivals.length, 0)
    assert.ok(log.lines.some((line) => JSON.stringify(line).includes('ingress.proxy_header')))
  })

  it('refuses a header of anybody else, and a second one', async () => {
    const stranger = await connect('127.0.0.3')
    stranger.write(Buffer.concat([HEADER, HELLO]))
    await turnedAway(stranger, 'malformed')
    const twice = await connect('127.0.0.2')
    twice.write(Buffer.concat([HEADER, HEADER, HELLO]))
    await turnedAway(twice, 'malformed', 2)
    assert.equal(arrivals.length, 0)
  })

  it('holds the client to its limits, and the balancer to none', async () => {
    ingress.destroyAll()
    await ingress.close()
    await open({ failedHandshakesPerMinute: 2, maxPendingHandshakesPerAddress: 2 }, BALANCER)
    const from = async (host: string, bytes: Buffer) => {
      const socket = await connect('127.0.0.2')
      socket.write(Buffer.concat([writeProxyHeader({ ...CLIENT, host }, EDGE), bytes]))
      return socket
    }
    for (let time = 1; time <= 2; time++) {
      await turnedAway(await from(CLIENT.host, Buffer.from('no TLS')), 'malformed', time)
    }
    await turnedAway(await from(CLIENT.host, HELLO), 'failed_too_often')
    assert.deepEqual(limited, [`failed_handshakes ${CLIENT.host}`])
    const crowd = [await from('203.0.113.8', HELLO), await from('203.0.113.8', HELLO)]
    for (const _ of crowd) assert.equal((await arrival()).clientHost, '203.0.113.8')
    await from('203.0.113.8', HELLO)
    await turnedAway(crowd[0]!, 'too_many_of_address')
    await from('203.0.113.9', HELLO)
    await arrival()
    assert.equal((await arrival()).clientHost, '203.0.113.9')
  })

  it('waits for a header as long as for a hello', async () => {
    ingress.destroyAll()
    await ingress.close()
    await open({ handshakeTimeoutMs: 50 }, BALANCER)
    const socket = await connect('127.0.0.2')
    socket.write(HEADER.subarray(0, 8))
    await turnedAway(socket, 'late')
  })
})
