import assert from 'node:assert/strict'
import { once } from 'node:events'
import { type AddressInfo, createServer } from 'node:net'
import path from 'node:path'
import { after, before, describe, test } from 'node:test'
import { connectService } from './support/connect-service.ts'
import { makePerson } from './support/dev-browser.ts'
import { type EdgeProcess, startEdge } from './support/edge-process.ts'
import { runPostern } from './support/postern.ts'
import { makeTempFolder } from './support/temp-folder.ts'

/** `postern connect` in front of whatever listens: IPv6, sockets of the machine. */

let edge: EdgeProcess
let ann: string

before(async () => {
  edge = await startEdge()
  ann = await makePerson(edge, 'ann@mycorp.com')
})
after(() => edge?.[Symbol.asyncDispose]())

const reach = (host: string) => runPostern(['client', 'tls', '--host', host], { home: ann, stdin: 'hello' })

describe('the target', () => {
  test('at an IPv6 address', async () => {
    const server = createServer((socket) => socket.pipe(socket)).listen(0, '::1')
    await once(server, 'listening')
    const target = `[::1]:${(server.address() as AddressInfo).port}`
    await using service = await connectService({ home: ann, name: 'six', target })
    assert.equal((await reach(service.host)).stdout, 'hello')
    server.close()
  })

  test('behind a socket of its machine; gone, it is refused', async () => {
    const socketPath = path.join(makeTempFolder('socket'), 'db.sock')
    const server = createServer((socket) => socket.pipe(socket)).listen(socketPath)
    await once(server, 'listening')
    await using service = await connectService({ home: ann, name: 'socket', target: `unix:${socketPath}` })
    assert.equal((await reach(service.host)).stdout, 'hello')
    server.close()
    await once(server, 'close')
    const refused = await reach(service.host)
    assert.equal(refused.code, 6)
    assert.match(refused.stderr, /SERVICE_REFUSED/)
    assert.ok(!refused.stderr.includes(socketPath), 'says where the private service is')
  })
})
