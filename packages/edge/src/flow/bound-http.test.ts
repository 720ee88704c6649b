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
import { boundHttp, type RefusedHttp } from './bound-http.ts'

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
let open: ReadonlySet<unknown>

afterEach(() => {
  server.close()
  server.closeAllConnections()
})
after(() => rmSync(folder, { recursive: true }))

async function serve(options: { maxConnections?: number; stalledMs?: number }, answer = 'ok'): Promise<void> {
  server = https.createServer({ key, cert }, (_request, response) => response.end(answer))
  refused = []
  whenRefused = () => {}
  open = boundHttp(server, {
    room: 'https',
    maxConnections: 10,
    ...options,
    onRefused(one) {
      refused.push(one)
      whenRefused()
    },
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
}

async function connect(): Promise<TLSSocket> {
  const { port } = server.address() as AddressInfo
  const socket = tls.connect({ port, host: '127.0.0.1', servername: 'localhost', ca: cert })
  socket.on('error', () => {})
  const arrived = once(server, 'secureConnection')
  await Promise.all([once(socket, 'secureConnect'), arrived])
  return socket
}

describe('an HTTP room', () => {
  it('has a bound of connections, and the oldest goes', async () => {
    await serve({ maxConnections: 2 })
    const [first, second] = [await connect(), await connect()]
    const third = await connect()
    await once(first.resume(), 'close')
    assert.equal(open.size, 2)
    assert.deepEqual(refused, [{ room: 'https', reason: 'too_many' }])
    for (const socket of [second, third]) {
      socket.write('GET / HTTP/1.1\r\nHost: localhost\r\n\r\n')
      assert.match(String((await once(socket, 'data'))[0]), /^HTTP\/1.1 200/)
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
    assert.deepEqual(refused, [{ room: 'https', reason: 'stalled' }])
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
      assert.deepEqual(refused, [{ room: 'https', reason }])
    }
    await new Promise<void>((resolve) => {
      const look = () => (open.size === 0 ? resolve() : setImmediate(look))
      look() // the server's side closes a little later
    })
  })
})
