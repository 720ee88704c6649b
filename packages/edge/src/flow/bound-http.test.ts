import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import https from 'node:https'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { after, afterEach, describe, it } from 'node:test'
import tls, { type TLSSocket } from 'node:tls'
import { boundHttp, type HttpConnections, type RefusedHttp } from './bound-http.ts'

const folder = mkdtempSync(path.join(tmpdir(), 'postern-http-'))
const [keyFile, certFile] = [path.join(folder, 'key.pem'), path.join(folder, 'cert.pem')]
execFileSync(
  'openssl',
  [
    ...['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2'],
    ...[
      '-subj',
      '/CN=localhost',
      '-addext',
      'subjectAltName=DNS:localhost',
      '-keyout',
      keyFile,
      '-out',
      certFile,
    ],
  ],
  { stdio: 'ignore' },
)
const [key, cert] = [readFileSync(keyFile), readFileSync(certFile)]
let server: https.Server
let refused: RefusedHttp[]
let whenRefused: () => void
let open: HttpConnections

afterEach(() => {
  server.close()
  server.closeAllConnections()
})
after(() => rmSync(folder, { recursive: true }))

interface Bounds {
  maxConnections?: number
  maxPerAddress?: number
  stalledMs?: number
}

async function serve(options: Bounds, answer = 'ok'): Promise<void> {
  server = https.createServer({ key, cert }, (_request, response) => response.end(answer))
  refused = []
  whenRefused = () => {}
  open = boundHttp(server, {
    room: 'https',
    maxConnections: 10,
    maxPerAddress: 10,
    ...options,
    onRefused(one) {
      refused.push(one)
      whenRefused()
    },
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
}

async function connect(localAddress = '127.0.0.1'): Promise<TLSSocket> {
  const { port } = server.address() as AddressInfo
  const to = { port, host: '127.0.0.1', localAddress, servername: 'localhost', ca: cert }
  const socket = tls.connect(to)
  socket.on('error', () => {})
  const arrived = once(server, 'secureConnection')
  await Promise.all([once(socket, 'secureConnect'), arrived])
  return socket
}

async function assertServed(socket: TLSSocket): Promise<void> {
  socket.write('GET / HTTP/1.1\r\nHost: localhost\r\n\r\n')
  assert.match(String((await once(socket, 'data'))[0]), /^HTTP\/1.1 200/)
}

describe('an HTTP room', () => {
  it('has a bound of connections, and the oldest goes', async () => {
    await serve({ maxConnections: 2 })
    const [first, second] = [await connect(), await connect()]
    const third = await connect()
    await once(first.resume(), 'close')
    assert.equal(open.size, 2)
    assert.deepEqual(refused, [{ room: 'https', reason: 'too_many', clientHost: '127.0.0.1' }])
    for (const socket of [second, third]) {
      await assertServed(socket)
      socket.destroy()
    }
  })

  it('lets a crowd of one address push out its own, and nobody who has shown who they are', async () => {
    await serve({ maxConnections: 4, maxPerAddress: 2 })
    const settling = once(server, 'secureConnection')
    const known = await connect('127.0.0.2')
    const [settled] = (await settling) as [TLSSocket]
    open.settle(settled)
    const other = await connect('127.0.0.3')
    const crowd = [await connect('127.0.0.2'), await connect('127.0.0.2'), await connect('127.0.0.2')]
    await once(crowd[0]!.resume(), 'close')
    assert.deepEqual(refused, [{ room: 'https', reason: 'too_many_of_address', clientHost: '127.0.0.2' }])
    // the oldest of all is one that stays
    const last = await connect('127.0.0.4')
    await once(other.resume(), 'close')
    assert.equal(refused[1]?.reason, 'too_many')
    assert.equal(open.size, 4)
    for (const socket of [known, crowd[1]!, crowd[2]!, last]) {
      await assertServed(socket)
      socket.destroy()
    }
  })

  it('gives up who does not read the answer', async () => {
    await serve({ stalledMs: 200 }, 'x'.repeat(50_000_000))
    const socket = await connect()
    const heard = new Promise<void>((resolve) => {
      whenRefused = resolve
    })
    socket.pause().write('GET / HTTP/1.1\r\nHost: localhost\r\n\r\n')
    await heard
    assert.deepEqual(refused, [{ room: 'https', reason: 'stalled', clientHost: '127.0.0.1' }])
    socket.destroy()
  })

  it('answers what Node refuses by itself, and counts it', async () => {
    await serve({})
    const cases: [string, string, RefusedHttp['reason']][] = [
      ['not HTTP\r\n\r\n', '400', 'malformed'],
      [`GET / HTTP/1.1\r\nX: ${'x'.repeat(20_000)}\r\n\r\n`, '431', 'headers_too_large'],
    ]
    for (const [bytes, status, reason] of cases) {
      refused = []
      const socket = await connect()
      socket.write(bytes)
      assert.match(String((await once(socket, 'data'))[0]), new RegExp(`^HTTP/1.1 ${status} `))
      await once(socket.resume(), 'close')
      assert.deepEqual(refused, [{ room: 'https', reason, clientHost: '127.0.0.1' }])
    }
    await new Promise<void>((resolve) => {
      const look = () => (open.size === 0 ? resolve() : setImmediate(look))
      look() // the server's side closes a little later
    })
  })
})
