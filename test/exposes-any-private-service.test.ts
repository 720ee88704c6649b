import assert from 'node:assert/strict'
import { once } from 'node:events'
import { type AddressInfo, createServer } from 'node:net'
import path from 'node:path'
import { after, before, describe, test } from 'node:test'
import { quoteForShell } from '../demo/dev-login.ts'
import { findFreePort } from '../demo/free-port.ts'
import { connectService } from './support/connect-service.ts'
import { makeDevBrowser, makePerson } from './support/dev-browser.ts'
import { type EdgeProcess, startEdge } from './support/edge-process.ts'
import { runPostern, spawnPostern } from './support/postern.ts'
import { makeTempFolder } from './support/temp-folder.ts'
import { until } from './support/until.ts'

/** `postern connect` in front of whatever listens: IPv6, sockets of the machine, and what is down just now. */

let edge: EdgeProcess
let ann: string

before(async () => {
  edge = await startEdge()
  ann = await makePerson(edge, 'ann@mycorp.com')
})
after(() => edge?.[Symbol.asyncDispose]())

const reach = (host: string) => runPostern(['client', 'tls', '--host', host], { home: ann, stdin: 'hello' })

test('the line for people names the CA of the edge, and works as it stands', async () => {
  const connector = spawnPostern(
    ['connect', '--name', 'told', '--port', '1', '--health-check', 'off', '--allow-any-authenticated'],
    { home: ann },
  )
  try {
    const [, line] = await connector.matches(/^ {2}once {4}postern (login .*)$/m)
    assert.match(line!, /--ca-fingerprint sha256:[0-9a-f]{64}$/)
    const home = makeTempFolder('told')
    const browser = quoteForShell(await makeDevBrowser(edge, home, 'ben@mycorp.com'))
    const { code, stderr } = await runPostern([...line!.split(' '), '--browser', browser], { home })
    assert.equal(code, 0, stderr)
  } finally {
    await connector.stop('SIGTERM')
  }
})

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
    const closed = await service.event('flow.closed', ({ error }) => error !== undefined)
    assert.equal(closed.found, `unix:${socketPath}: there is no such file`)
  })
})

describe('the look whether the service is there', () => {
  const show = async (host: string) => {
    const { stdout } = await runPostern(['service', 'show', host, '--json'], { home: ann })
    return JSON.parse(stdout).service.targets as { state: string; code?: string; since: number }[]
  }
  const showsState = (host: string, state: string) =>
    until(`the target is shown ${state}`, async () => (await show(host))[0]?.state === state)

  test('shows that it is down, why and since when, and that it is back', async () => {
    const port = await findFreePort()
    const listen = async () => {
      const server = createServer((socket) => socket.pipe(socket)).listen(port, '127.0.0.1')
      await once(server, 'listening')
      return server
    }
    const first = await listen()
    await using service = await connectService({
      ...{ home: ann, name: 'watched', target: `127.0.0.1:${port}`, args: ['--health-check', '1s'] },
      allowedEmailDomains: ['mycorp.com'],
    })
    await showsState(service.host, 'up')
    const before = Date.now()
    first.close()
    await showsState(service.host, 'down')
    const [target] = await show(service.host)
    assert.equal(target!.code, 'SERVICE_REFUSED')
    assert.ok(target!.since >= before - 1_000 && target!.since <= Date.now(), `since ${target!.since}`)
    const down = await service.event('target.down')
    assert.deepEqual([down.code, down.found], ['SERVICE_REFUSED', `127.0.0.1:${port}: nothing listens there`])
    const list = await runPostern(['service', 'list'], { home: ann })
    assert.match(list.stdout, /1 up, 0 flows, target down for \S+/)
    const shown = await runPostern(['service', 'show', service.host], { home: ann })
    assert.match(shown.stdout, /target {6}down since \d{4}-\S+Z \(SERVICE_REFUSED\), seen from /)

    const second = await listen()
    await showsState(service.host, 'up')
    await service.event('target.up')
    assert.equal((await reach(service.host)).stdout, 'hello')
    assert.doesNotMatch((await runPostern(['service', 'list'], { home: ann })).stdout, /target down/)
    second.close()
  })

  test('is not taken where it is off', async () => {
    let connections = 0
    const server = createServer((socket) => {
      connections++
      socket.pipe(socket)
    }).listen(0, '127.0.0.1')
    await once(server, 'listening')
    await using service = await connectService({
      ...{ home: ann, name: 'unwatched', port: (server.address() as AddressInfo).port },
      ...{ args: ['--health-check', 'off'], allowedEmailDomains: ['mycorp.com'] },
    })
    assert.equal((await reach(service.host)).stdout, 'hello')
    assert.deepEqual([connections, await show(service.host)], [1, []])
    server.close()
  })
})
