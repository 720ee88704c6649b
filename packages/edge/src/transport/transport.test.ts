import assert from 'node:assert/strict'
import { once } from 'node:events'
import http from 'node:http'
import net, { type AddressInfo, type Socket } from 'node:net'
import { after, before, describe, test } from 'node:test'
import type { TLSSocket } from 'node:tls'
import { TRANSPORT_PATH, TRANSPORT_SUBPROTOCOL } from '@postern/shared/protocol/transport'
import { MessageStream } from '@postern/shared/stream/message-stream'
import { WebSocket } from 'ws'
import { openSocketPairs } from './socket-pairs.ts'
import { isTransport, openTransport, type Transport } from './transport.ts'

const log = { debug() {}, info() {}, warn() {}, error() {} }

let server: http.Server
let transport: Transport
const MAX_PER_ADDRESS = 3
const LINGER_MS = 200

let isStopping = false
const inside: { socket: Socket; client: { host: string; port: number }; settle: () => void }[] = []
const refused: string[] = []

before(async () => {
  transport = await openTransport({
    maxConnections: 5,
    maxPerAddress: MAX_PER_ADDRESS,
    isStopping: () => isStopping,
    enterInside: (socket, { client }, settle) => void inside.push({ socket, client, settle }),
    onRefused: ({ reason }) => void refused.push(reason),
    log,
    lingerMs: LINGER_MS,
  })
  server = http.createServer({ shouldUpgradeCallback: isTransport }, (_request, response) =>
    response.writeHead(404).end(),
  )
  server.on('upgrade', (request, socket, head) => transport.upgrade(request, socket as TLSSocket, head))
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
})
after(() => {
  transport?.close()
  server?.closeAllConnections()
  server?.close()
})

/** @returns the WebSocket, or the status of a refusal */
async function connect(path = TRANSPORT_PATH, protocol = TRANSPORT_SUBPROTOCOL): Promise<WebSocket | number> {
  const ws = new WebSocket(`ws://127.0.0.1:${(server.address() as AddressInfo).port}${path}`, [protocol])
  ws.on('error', () => undefined)
  return new Promise((resolve) => {
    ws.once('open', () => resolve(ws))
    ws.once('unexpected-response', (_request, response) => {
      resolve(response.statusCode!)
      ws.terminate()
    })
  })
}

/** Resolves once the edge knows, too. */
async function leave(ws: WebSocket): Promise<void> {
  const before = transport.size
  ws.terminate()
  while (transport.size >= before) await new Promise((resolve) => setImmediate(resolve))
}

/** Under the frames. */
function rawSocketOf(ws: WebSocket): Socket {
  return (ws as unknown as { _socket: Socket })._socket
}

async function arrived(count: number): Promise<(typeof inside)[number]> {
  while (inside.length < count) await new Promise((resolve) => setImmediate(resolve))
  return inside[count - 1]!
}

describe('connections inside WebSockets', () => {
  test('bring their bytes and both ends, and whose they are', async () => {
    const ws = (await connect()) as WebSocket
    const stream = new MessageStream(ws)
    const { socket, client } = await arrived(1)
    assert.equal(client.host, '127.0.0.1')
    assert.notEqual(client.port, socket.remotePort)
    stream.end('question')
    assert.equal(String(Buffer.concat(await socket.toArray())), 'question')
    socket.end('answer')
    assert.equal(String(Buffer.concat(await stream.toArray())), 'answer')
    await once(ws, 'close')
    while (transport.size > 0) await new Promise((resolve) => setImmediate(resolve))
  })

  test('are cut when the WebSocket is, and the other way round', async () => {
    const one = (await connect()) as WebSocket
    const first = await arrived(2)
    const reset = once(first.socket, 'error')
    first.socket.resume()
    one.terminate()
    assert.equal((await reset)[0].code, 'ECONNRESET')
    const other = new MessageStream((await connect()) as WebSocket)
    const second = await arrived(3)
    const lost = once(other, 'close')
    second.socket.resetAndDestroy()
    await lost
  })

  test('are so many and no more, and none once the edge is about to stop', async () => {
    const open: WebSocket[] = []
    while (open.length < 5) {
      open.push((await connect()) as WebSocket)
      ;(await arrived(3 + open.length)).settle()
    }
    refused.length = 0
    assert.equal(await connect(), 503)
    assert.equal(transport.size, 5, 'none of those who have shown who they are made room')
    await leave(open.pop()!)
    isStopping = true
    assert.equal(await connect(), 503)
    isStopping = false
    assert.deepEqual(refused, ['too_many', 'stopping'])
    open.push((await connect()) as WebSocket)
    for (const ws of open) await leave(ws)
  })

  test('of strangers at one address are fewer: the oldest goes, and nobody who has shown who they are', async () => {
    refused.length = 0
    const before = inside.length
    const known = (await connect()) as WebSocket
    ;(await arrived(before + 1)).settle()
    const strangers: WebSocket[] = []
    while (strangers.length < MAX_PER_ADDRESS) strangers.push((await connect()) as WebSocket)
    const gone = once(strangers[0]!, 'close')
    strangers.push((await connect()) as WebSocket)
    await gone
    assert.deepEqual(refused, ['too_many_of_address'])
    assert.equal(transport.size, 1 + MAX_PER_ADDRESS)
    for (const ws of [known, ...strangers.slice(1)]) await leave(ws)
  })

  test('are not kept open by who is told that it is over, and says nothing', async () => {
    refused.length = 0
    const before = inside.length
    const ws = (await connect()) as WebSocket
    const { socket } = await arrived(before + 1)
    const [over, gone] = [once(ws, 'message'), once(ws, 'close')]
    socket.destroy()
    assert.equal(String((await over)[0]), 'end')
    await gone
    assert.deepEqual(refused, ['stalled'])
  })

  test('leave nothing behind when they go at once', async () => {
    const before = inside.length
    for (let time = 0; time < 20; time++) await leave((await connect()) as WebSocket)
    for (const { socket } of inside.slice(before)) {
      socket.resume()
      if (!socket.closed) await once(socket, 'close').catch(() => undefined)
    }
  })

  test('are ended by frames that are none, messages that are too long, and more parts than any need', async () => {
    refused.length = 0
    const strikes: ((ws: WebSocket) => void)[] = [
      (ws) => rawSocketOf(ws).write(Buffer.alloc(64, 0xff)),
      (ws) => ws.send(Buffer.alloc(64 * 1024 + 1)),
      (ws) => {
        for (let part = 0; part < 1_000; part++) ws.send('x', { fin: false, binary: true })
      },
    ]
    for (const strike of strikes) {
      const ws = (await connect()) as WebSocket
      strike(ws)
      await once(ws, 'close')
    }
    assert.deepEqual(
      refused,
      strikes.map(() => 'malformed'),
    )
  })

  test('are upgraded at their place and with their protocol only', async () => {
    assert.equal(await connect('/v1/other'), 404)
    assert.equal(await connect(TRANSPORT_PATH, 'chat'), 404)
  })
})

test('who connects to the inner port by himself is nobody', async (t) => {
  const pairs = await openSocketPairs(16_384)
  t.after(() => pairs.close())
  const { near, far } = await pairs.open()
  const stranger = net.connect(far.localPort!, '127.0.0.1')
  stranger.on('error', () => undefined)
  stranger.resume()
  await once(stranger, 'close') // let go
  near.write('still there')
  assert.equal(String((await once(far, 'data'))[0]), 'still there')
  for (const socket of [near, far]) socket.destroy()
})
