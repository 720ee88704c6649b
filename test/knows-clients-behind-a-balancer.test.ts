import assert from 'node:assert/strict'
import { once } from 'node:events'
import { readFileSync, writeFileSync } from 'node:fs'
import net from 'node:net'
import path from 'node:path'
import { after, before, describe, test } from 'node:test'
import tls from 'node:tls'
import { writeProxyHeader } from '@postern/shared/proxy-protocol/header'
import { findFreePort } from '../demo/free-port.ts'
import type { Program } from '../demo/program.ts'
import { type ConnectedService, connectService } from './support/connect-service.ts'
import { makePerson } from './support/dev-browser.ts'
import { type EdgeProcess, startEdge } from './support/edge-process.ts'
import { startHaproxy } from './support/haproxy.ts'
import { requestEdge } from './support/oauth-peer.ts'
import { runPostern } from './support/postern.ts'
import { startEcho, type TcpService } from './support/tcp-services.ts'
import { makeTempFolder } from './support/temp-folder.ts'
import { until, within } from './support/until.ts'

/** haproxy as a plain TCP balancer in front of the edge: with a PROXY header people keep their addresses. */

const BALANCER = '127.0.0.2'
const PERSON = '127.0.0.1'
const FAILURES = 20

let edgePort: number
let edge: EdgeProcess
let haproxy: Program
let echo: TcpService
let operator: string
let service: ConnectedService

before(async () => {
  const port = await findFreePort()
  edgePort = await findFreePort()
  edge = await startEdge({
    port: edgePort,
    config: {
      public_port: port,
      accept_proxy_protocol: [BALANCER],
      limits: { failed_handshakes_per_minute: FAILURES },
    },
  })
  haproxy = await startHaproxy(
    `frontend edge
  mode tcp
  bind 127.0.0.1:${port}
  default_backend edges
backend edges
  mode tcp
  source ${BALANCER}
  server one 127.0.0.1:${edgePort} send-proxy-v2 check inter 1s
`,
    [port],
  )
  echo = await startEcho()
  operator = await makePerson(edge, 'operator@mycorp.com')
  service = await connectService({ home: operator, port: echo.port, name: 'echo' })
})
after(async () => {
  await service?.[Symbol.asyncDispose]()
  await echo?.[Symbol.asyncDispose]()
  await haproxy?.[Symbol.asyncDispose]()
  await edge?.[Symbol.asyncDispose]()
})

const reach = () => runPostern(['client', 'tls', '--host', service.host], { home: operator, stdin: 'hello' })

async function audited(type: string): Promise<{ clientAddress: string; code?: string }[]> {
  const { stdout, stderr } = await runPostern(['audit', 'list', '--json', '--type', type], { home: operator })
  const records = stdout.split('\n').filter(Boolean)
  assert.ok(records.length > 0, `${type}: ${stderr}`)
  return records.map((line) => JSON.parse(line))
}

/** A policy that asks for this network. */
async function requireNetwork(network: string): Promise<void> {
  const file = path.join(makeTempFolder('policy'), 'policy.yaml')
  writeFileSync(
    file,
    `service: ${service.host}
require: { source_networks: [${network}] }
`,
  )
  const { code, stderr } = await runPostern(['policy', 'apply', '-f', file], { home: operator })
  assert.equal(code, 0, stderr)
}

describe('behind haproxy with send-proxy-v2', () => {
  test('sign-in, connector and flow have the address of their client', async () => {
    assert.equal((await reach()).stdout, 'hello')
    for (const type of ['login.ok', 'connector.attached', 'flow.decided']) {
      for (const { clientAddress } of await audited(type)) {
        assert.match(clientAddress, /^127\.0\.0\.1(:\d+)?$/, type)
      }
    }
    const [opened] = service.events().filter(({ event }) => event === 'flow.opened')
    assert.match(String(opened!.clientAddress), /^127\.0\.0\.1:\d+$/)
  })

  test('a policy reads the network of the client, not of the balancer', async () => {
    await requireNetwork(`${PERSON}/32`)
    assert.equal((await reach()).stdout, 'hello')
    await requireNetwork(`${BALANCER}/32`)
    const refused = await reach()
    assert.equal(refused.code, 5)
    assert.match(refused.stderr, /NETWORK_NOT_ALLOWED/)
    await requireNetwork(`${PERSON}/32`)
  })

  test('who fails too often is turned away, and nobody else behind the balancer is', async () => {
    const fromFlooder = { path: '/v1/edge', localAddress: '127.0.0.9' }
    assert.equal((await requestEdge(edge, fromFlooder)).status, 200)
    for (let failures = 0; failures <= FAILURES; failures++) {
      const socket = net.connect({ port: edge.port, host: PERSON, localAddress: '127.0.0.9' })
      socket.on('error', () => {})
      socket.end('no TLS at all')
      socket.resume()
      await within('the edge closes it', once(socket, 'close'))
    }
    await until('the flooder is turned away', () =>
      requestEdge(edge, fromFlooder).then(
        () => false,
        () => true,
      ),
    )
    assert.equal((await requestEdge(edge, { ...fromFlooder, localAddress: '127.0.0.10' })).status, 200)
  })
})

describe('past the balancer', () => {
  const header = writeProxyHeader({ host: '203.0.113.7', port: 50_514 }, { host: '203.0.113.1', port: 443 })

  /** Whether a TLS handshake succeeds that begins with these bytes. */
  async function shakesHands(localAddress: string, prefix: Buffer): Promise<boolean> {
    const socket = net.connect({ port: edgePort, host: '127.0.0.1', localAddress })
    socket.on('error', () => {})
    await once(socket, 'connect')
    if (prefix.length > 0) socket.write(prefix)
    const secure = tls.connect({ socket, servername: edge.domain, ca: readFileSync(edge.caFile) })
    const ended = new Promise<boolean>((resolve) => {
      secure.once('secureConnect', () => resolve(true))
      secure.once('error', () => resolve(false))
      secure.once('close', () => resolve(false))
    })
    const succeeded = await within('the handshake ends', ended)
    secure.destroy()
    return succeeded
  }

  test('a header is believed from the named address only, and there it has to be', async () => {
    const none = Buffer.alloc(0)
    assert.equal(await shakesHands(BALANCER, header), true)
    assert.equal(await shakesHands(BALANCER, none), false)
    assert.equal(await shakesHands('127.0.0.3', none), true)
    assert.equal(await shakesHands('127.0.0.3', header), false)
    const version1 = Buffer.from('PROXY TCP4 203.0.113.7 203.0.113.1 50514 443\r\n')
    assert.equal(await shakesHands(BALANCER, version1), false)
    assert.match(edge.logs(), /ingress\.proxy_header/)
  })

  test('a wrong header leaves the edge as it was', async () => {
    assert.equal((await requestEdge(edge, { path: '/readyz' })).status, 200)
  })
})
