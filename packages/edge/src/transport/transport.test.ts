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
let isStopping = false
const inside: { socket: Socket; client: { host: string; port: number } }[] = []

before(async () => {
  transport = await openTransport({
    maxConnections: 2,
    isStopping: () => isStopping,
    enterInside: (socket, { client }) => void inside.push({ socket, client }),
    log,
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
    const [one, two] = [await connect(), await connect()]
    assert.ok(one instanceof WebSocket && two instanceof WebSocket)
    assert.equal(await connect(), 503)
    one.terminate()
    while (transport.size > 1) await new Promise((resolve) => setImmediate(resolve))
    isStopping = true
    assert.equal(await connect(), 503)
    isStopping = false
    const three = await connect()
    assert.ok(three instanceof WebSocket)
    for (const ws of [two, three]) ws.terminate()
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
