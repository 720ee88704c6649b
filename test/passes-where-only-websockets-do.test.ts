import assert from 'node:assert/strict'
import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { globSync, readFileSync } from 'node:fs'
import https from 'node:https'
import path from 'node:path'
import { after, before, describe, test } from 'node:test'
import tls from 'node:tls'
import { lookupHost } from '@postern/shared/lookup-host'
import { MessageStream } from '@postern/shared/stream/message-stream'
import { WebSocket } from 'ws'
import { quoteForShell } from '../demo/dev-login.ts'
import { findFreePort } from '../demo/free-port.ts'
import { type ConnectedService, connectService } from './support/connect-service.ts'
import { makeDevBrowser } from './support/dev-browser.ts'
import { type EdgeProcess, startEdge } from './support/edge-process.ts'
import { type Nginx, startNginx } from './support/nginx.ts'
import { runPostern, spawnPostern } from './support/postern.ts'
import { startTcpService, type TcpService } from './support/tcp-services.ts'
import { makeTempFolder } from './support/temp-folder.ts'
import { until, within } from './support/until.ts'

/** An edge behind Debian's nginx, which ends TLS with a certificate of its own. People and connectors reach nothing else. */

const BYTES = randomBytes(3_000_000)
const DIGEST = createHash('sha256').update(BYTES).digest('hex')

let edge: EdgeProcess
let nginx: Nginx
let service: TcpService
let connected: ConnectedService
let env: NodeJS.ProcessEnv
let origin: string
/** The edge's own, behind nginx. */
let listenPort: number
const home: string = makeTempFolder('home')

before(async () => {
  const port = await findFreePort()
  listenPort = await findFreePort()
  edge = await startEdge({ port: listenPort, config: { public_port: port } })
  nginx = await startNginx(edge, { listenPort, port })
  origin = `https://${edge.domain}:${port}`
  env = { POSTERN_TRANSPORT: 'ws', POSTERN_TRANSPORT_CA: nginx.caFile }
  // says the hash of all that came, after its end; and then as much again
  service = await startTcpService(async ({ socket, ended, hash }) => {
    if ((await ended) !== 'end') return
    socket.write(hash())
    socket.end(BYTES)
  })
  const browser = await makeDevBrowser({ origin, caFile: nginx.caFile }, home, 'operator@mycorp.com')
  const login = [
    'login',
    '--edge',
    origin,
    '--ca-file',
    edge.caFile,
    '--transport',
    'ws',
    '--transport-ca',
    nginx.caFile,
  ]
  const signedIn = await runPostern([...login, '--browser', quoteForShell(browser)], { home })
  assert.equal(signedIn.code, 0, signedIn.stderr)
  connected = await connectService({ home, port: service.port, env })
})
after(async () => {
  await connected?.[Symbol.asyncDispose]()
  await service?.[Symbol.asyncDispose]()
  await nginx?.[Symbol.asyncDispose]()
  await edge?.[Symbol.asyncDispose]()
})

describe('--transport ws', () => {
  test('carries every byte both ways, and the end of each way by itself', async () => {
    const words = ['client', 'tls', '--host', connected.host]
    const { code, stdoutBytes, stderr } = await runPostern(words, { home, env, stdin: BYTES })
    assert.equal(code, 0, stderr)
    assert.equal(String(stdoutBytes.subarray(0, DIGEST.length)), DIGEST)
    assert.ok(stdoutBytes.subarray(DIGEST.length).equals(BYTES))
  })

  test('makes a connection that is killed in the middle a cut, never an end', async () => {
    const seen = service.connections.length
    const client = spawnPostern(['client', 'tls', '--host', connected.host], { home, env })
    client.child.stdin.write('half of it')
    const served = await within('the service is reached', service.connection(seen))
    await until('the bytes are there', () => served.bytesRead === 'half of it'.length)
    client.signal('SIGKILL')
    assert.equal(await within('the service hears of it', served.ended), 'reset')
  })

  test('is refused where what ends TLS is not trusted, and where no WebSocket is opened', async () => {
    const words = ['client', 'tls', '--host', connected.host]
    const untrusted = await runPostern(words, { home, env: { POSTERN_TRANSPORT: 'ws' } })
    assert.match(untrusted.stderr, /\(EDGE_UNTRUSTED\)\n.*--transport-ca FILE/)
    // nginx speaks no Postern, and has no certificate of the edge
    const without = await runPostern(words, { home })
    assert.match(without.stderr, /\(EDGE_UN(TRUSTED|REACHABLE)\)/)
    for (const { code, stdout } of [untrusted, without])
      assert.deepEqual({ code, stdout }, { code: 6, stdout: '' })
    assert.equal((await runPostern([...words, '--transport', 'carrier-pigeon'], { home })).code, 2)
  })

  test('leads into no room for people: what is inside reaches flows and connectors only', async () => {
    const inside = (servername: string, protocol: string) => tryInside(servername, protocol)
    assert.equal(await inside(edge.domain, 'http/1.1'), 'closed')
    assert.equal(await inside(`nowhere.${edge.domain}`, 'http/1.1'), 'closed')
    // there a certificate is asked for
    assert.equal(await inside(connected.host, 'postern/1'), 'asked')
    assert.equal(await inside(edge.domain, 'postern-data/1'), 'asked')
    assert.equal(await inside(`mtls.${edge.domain}`, 'http/1.1'), 'asked')
    // and with a connector's certificate it attaches, which it has done, and does nothing else
    assert.match(await askInsideAsConnector('GET /v1/edge'), /^HTTP\/1\.1 404 /)
  })

  test('is a WebSocket of its kind, and nothing else is upgraded', async () => {
    assert.equal(await upgrade('/v1/transport', 'another'), 404)
    assert.equal(await upgrade('/v1/edge', 'postern-transport.v1'), 200)
    assert.ok(nginx.webSockets().some((status) => status === 101))
  })

  test('tells a flow from a connection that was lost on the way', async () => {
    const seen = service.connections.length
    const client = spawnPostern(['client', 'tls', '--host', connected.host], { home, env })
    client.child.stdin.write('and')
    const served = await within('the service is reached', service.connection(seen))
    served.socket.write('then')
    await client.matches(/then/)
    await nginx[Symbol.asyncDispose]()
    const { code, stdout, stderr } = await client.ended
    assert.deepEqual({ code, stdout }, { code: 6, stdout: 'then' }, stderr)
    assert.match(stderr, /\(FLOW_CUT\)/)
    await connected.event('disconnected') // and it comes back when the way does
  })
})

/** The status of an answer to an upgrade, straight at the edge. */
async function upgrade(at: string, protocol: string): Promise<number> {
  const request = https.request(`https://${edge.domain}:${listenPort}${at}`, {
    lookup: lookupHost,
    ca: readFileSync(edge.caFile),
    agent: false,
    headers: {
      host: new URL(origin).host,
      connection: 'Upgrade',
      upgrade: 'websocket',
      'sec-websocket-version': '13',
      'sec-websocket-key': randomBytes(16).toString('base64'),
      'sec-websocket-protocol': protocol,
    },
  })
  request.end()
  return within(
    'an answer',
    new Promise<number>((resolve, reject) => {
      request.on('response', (response) => {
        response.resume()
        resolve(response.statusCode!)
      })
      request.on('upgrade', (response, socket) => {
        socket.destroy()
        resolve(response.statusCode!)
      })
      request.on('error', reject)
    }),
  )
}

/** TLS inside a WebSocket. */
async function startInside(options: tls.ConnectionOptions): Promise<tls.TLSSocket> {
  const ws = new WebSocket(`wss://${new URL(origin).host}/v1/transport`, ['postern-transport.v1'], {
    lookup: lookupHost,
    ca: readFileSync(nginx.caFile),
  })
  await once(ws, 'open')
  return tls.connect({ socket: new MessageStream(ws), ca: readFileSync(edge.caFile), ...options })
}

/** What a question gets from the connectors' room. */
async function askInsideAsConnector(question: string): Promise<string> {
  const [file] = globSync(path.join(home, 'edges/*/connectors/*/*/certificate.json'))
  const { keyPem, certificatePem } = JSON.parse(readFileSync(file!, 'utf8'))
  const servername = `mtls.${edge.domain}`
  const socket = await startInside({ servername, key: keyPem, cert: certificatePem })
  socket.write(`${question} HTTP/1.1\r\nHost: ${servername}\r\nConnection: close\r\n\r\n`)
  return within(
    'an answer',
    once(socket, 'data').then(([bytes]) => String(bytes)),
  )
}

/** Without a certificate. */
async function tryInside(servername: string, protocol: string): Promise<'closed' | 'asked'> {
  const socket = await startInside({ servername, ALPNProtocols: [protocol] })
  const outcome = await within(
    'an outcome',
    new Promise<'closed' | 'asked'>((resolve) => {
      // TLS 1.3: the refusal comes after the handshake, as an alert
      let shaken = false
      socket.on('secureConnect', () => (shaken = true))
      socket.on('error', () => resolve(shaken ? 'asked' : 'closed'))
      socket.on('close', () => resolve(shaken ? 'asked' : 'closed'))
    }),
  )
  socket.destroy()
  return outcome
}
