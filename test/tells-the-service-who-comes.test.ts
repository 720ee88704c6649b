import assert from 'node:assert/strict'
import { createPublicKey } from 'node:crypto'
import { after, before, describe, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import {
  FLOW_IDENTITY_KEYS_PATH,
  FLOW_IDENTITY_TYPE,
  type FlowIdentityKey,
  flowIdentityJwk,
  parseFlowIdentityKeys,
  readFlowIdentity,
} from '@postern/shared/proxy-protocol/flow-identity'
import { type ProxyHeader, readProxyHeader, writeProxyHeader } from '@postern/shared/proxy-protocol/header'
import { findFreePort } from '../demo/free-port.ts'
import { Program } from '../demo/program.ts'
import { type ConnectedService, connectService } from './support/connect-service.ts'
import { makePerson } from './support/dev-browser.ts'
import { type EdgeProcess, startEdge } from './support/edge-process.ts'
import { startHaproxy } from './support/haproxy.ts'
import { requestEdge } from './support/oauth-peer.ts'
import { runPostern } from './support/postern.ts'
import { runPosternEdge } from './support/postern-edge.ts'
import { startTcpService, type TcpService } from './support/tcp-services.ts'
import { until } from './support/until.ts'

/** `postern connect --proxy-protocol v2`: the service hears the client's address, and who that is, signed. */

const POSTERN_EDGE = fileURLToPath(new URL('../packages/edge/bin/postern-edge.js', import.meta.url))
const PROXY = ['--proxy-protocol', 'v2']

let edge: EdgeProcess
let ann: string
let operator: string

before(async () => {
  edge = await startEdge()
  operator = await makePerson(edge, 'operator@mycorp.com')
  ann = await makePerson(edge, 'ann@mycorp.com')
})
after(() => edge?.[Symbol.asyncDispose]())

const reach = (home: string, host: string, stdin: string) =>
  runPostern(['client', 'tls', '--host', host], { home, stdin })

/** A service that keeps the PROXY header of each connection, and sends back what follows it. */
async function startReader(): Promise<TcpService & { headers: ProxyHeader[] }> {
  const headers: ProxyHeader[] = []
  const service = await startTcpService(({ socket }) => {
    let bytes = Buffer.alloc(0)
    const onData = (chunk: Buffer) => {
      bytes = Buffer.concat([bytes, chunk])
      const header = readProxyHeader(bytes)
      if (header === 'incomplete') return
      socket.off('data', onData)
      if (header === 'malformed') return void socket.destroy()
      headers.push(header)
      socket.write(bytes.subarray(header.length))
      socket.pipe(socket)
    }
    socket.on('data', onData)
  })
  return Object.assign(service, { headers })
}

async function fetchKeys(): Promise<FlowIdentityKey[]> {
  const { json } = await requestEdge(edge, { path: FLOW_IDENTITY_KEYS_PATH })
  return parseFlowIdentityKeys(json)
}

/** The address of the client, as the connector tells it. */
async function clientAddressOf(service: ConnectedService, flowIndex = 0): Promise<string> {
  await service.event('flow.opened', () => true)
  return String(service.events().filter(({ event }) => event === 'flow.opened')[flowIndex]!.clientAddress)
}

test('haproxy with accept-proxy shows the address of the client', async () => {
  const port = await findFreePort()
  await using _haproxy = await startHaproxy(
    `frontend in
  mode http
  bind 127.0.0.1:${port} accept-proxy
  http-request return status 200 content-type text/plain lf-string "client %[src]:%[src_port] edge %[dst]:%[dst_port]"
`,
    [port],
  )
  await using service = await connectService({ home: operator, name: 'haproxy', port, args: PROXY })
  const request = 'GET / HTTP/1.0\r\n\r\n'
  const { stdout, stderr } = await reach(ann, service.host, request)
  const address = await clientAddressOf(service)
  assert.match(address, /^127\.0\.0\.1:\d+$/)
  assert.ok(stdout.endsWith(`client ${address} edge 127.0.0.1:${edge.port}`), stdout + stderr)

  // the same service without the header: haproxy refuses it
  await using without = await connectService({ home: operator, name: 'no header', port })
  assert.doesNotMatch((await reach(ann, without.host, request)).stdout, /client/)
})

describe('the identity in the header', () => {
  let reader: Awaited<ReturnType<typeof startReader>>
  let service: ConnectedService
  let keys: FlowIdentityKey[]
  let header: ProxyHeader & { command: 'proxy' }
  let now: number
  const expected = () => ({ keys, issuer: edge.origin, service: service.host, now })

  before(async () => {
    reader = await startReader()
    const args = [...PROXY, '--health-check', '1s']
    service = await connectService({ home: operator, name: 'reader', port: reader.port, args })
    keys = await fetchKeys()
    const { stdout, stderr } = await reach(ann, service.host, 'hello')
    assert.equal(stdout, 'hello', stderr)
    now = Date.now()
    header = reader.headers.find(({ command }) => command === 'proxy') as typeof header
  })
  after(async () => {
    await service?.[Symbol.asyncDispose]()
    await reader?.[Symbol.asyncDispose]()
  })

  test('is the person’s, for this flow, service and connector', async () => {
    const identity = readFlowIdentity(header, expected())
    const [opened] = service.events().filter(({ event }) => event === 'flow.opened')
    const [ready] = service.events().filter(({ event }) => event === 'ready')
    assert.deepEqual(
      [identity.email, identity.flowId, identity.source, identity.connectorId, identity.service],
      ['ann@mycorp.com', opened!.flowId, opened!.clientAddress, ready!.connectorId, service.host],
    )
    assert.equal(identity.destination, `127.0.0.1:${edge.port}`)
    assert.equal(identity.expiresAt - identity.issuedAt, 60_000)
    const { stdout: audited } = await runPostern(['audit', 'list', '--flow', identity.flowId, '--json'], {
      home: operator,
    })
    assert.ok(audited.includes(`"identityId":"${identity.identityId}"`), audited)
  })

  test('is no part of a look whether the service is there', async () => {
    await until('it is looked at', () => reader.headers.some(({ command }) => command === 'local'))
    assert.equal(reader.headers.filter(({ command }) => command === 'proxy').length, 1)
  })

  test('is worth nothing once anything is altered, elsewhere, or later', () => {
    const { source, destination, values } = header
    const refuses = (read: ProxyHeader, more: object = {}) =>
      assert.throws(() => readFlowIdentity(read, { ...expected(), ...more }), {
        code: 'FLOW_IDENTITY_INVALID',
      })
    const token = values[0]!.value
    const withToken = (value: Buffer) =>
      readProxyHeader(
        writeProxyHeader(source, destination, [{ type: FLOW_IDENTITY_TYPE, value }]),
      ) as ProxyHeader
    assert.equal(readFlowIdentity(withToken(token), expected()).email, 'ann@mycorp.com')
    const [head, body, signature] = token.toString().split('.') as [string, string, string]
    const claims = JSON.parse(Buffer.from(body, 'base64url').toString())
    for (const name of Object.keys(claims)) {
      const altered = { ...claims, [name]: typeof claims[name] === 'number' ? claims[name] + 1 : 'other' }
      const forged = Buffer.from(JSON.stringify(altered)).toString('base64url')
      refuses(withToken(Buffer.from(`${head}.${forged}.${signature}`)))
    }
    refuses({ ...header, source: { ...source, port: source.port ^ 1 } })
    refuses({ ...header, destination: { ...destination, host: '127.0.0.2' } })
    refuses({ ...header, values: [] })
    refuses(header, { service: 'other-1.edge.localhost' })
    refuses(header, { issuer: 'https://edge.elsewhere' })
    refuses(header, { now: now + 70_000 })
    refuses(header, { keys: [] })
  })

  test('the key is the one that the command prints, and signs nothing else', async () => {
    const print = async (...args: string[]) => {
      const command = [POSTERN_EDGE, 'flow-identity', 'key', '--config', edge.configFile, ...args]
      const { code, stdout, stderr } = await new Program(process.execPath, command, { stdin: '' }).ended
      assert.equal(code, 0, stderr)
      return stdout
    }
    assert.deepEqual(
      parseFlowIdentityKeys(JSON.parse(await print('--json'))).map(({ id }) => id),
      keys.map(({ id }) => id),
    )
    assert.equal(flowIdentityJwk(createPublicKey(await print())).kid, keys[0]!.id)
    const [value] = header.values
    const answer = await requestEdge(edge, {
      path: '/v1/session',
      headers: { authorization: `DPoP ${value!.value}` },
    })
    assert.equal(answer.status, 401)
  })

  test('is signed by the next key once that takes over, and services that follow notice nothing', async () => {
    const rotate = (...args: string[]) =>
      runPosternEdge(edge, ['ca', 'rotate', '--kind', 'flow-identity', ...args])
    const soon = await rotate('--signs-in', '1s')
    assert.deepEqual([soon.code, /learn of a new key/.test(soon.stderr)], [2, true], soon.stderr)
    const rotated = await rotate('--signs-in', '5s', '--unsafe-short-overlap')
    assert.equal(rotated.code, 0, rotated.stderr)
    assert.equal((await rotate()).code, 1, 'one at a time')

    const followed = await until('both are shown', async () => {
      const all = await fetchKeys()
      return all.length === 2 ? all : undefined
    })
    const [old, next] = followed.map(({ id }) => id) as [string, string]
    assert.equal(old, keys[0]!.id)
    const shown = await runPosternEdge(edge, ['ca', 'show'])
    assert.ok(shown.stdout.includes(next), shown.stdout)

    /** The header of one more flow of ann, and whose key has signed it. */
    const visit = async () => {
      const seen = reader.headers.length
      const { stdout, stderr } = await reach(ann, service.host, 'hello')
      assert.equal(stdout, 'hello', stderr)
      const visited = reader.headers.slice(seen).find(({ command }) => command === 'proxy') as typeof header
      const [head] = visited.values[0]!.value.toString().split('.')
      const { kid } = JSON.parse(Buffer.from(head!, 'base64url').toString()) as { kid: string }
      const read = (known: FlowIdentityKey[]) =>
        readFlowIdentity(visited, { ...expected(), keys: known, now: Date.now() })
      assert.equal(read(followed).email, 'ann@mycorp.com')
      return { kid, read }
    }
    const { read } = await until('the next one signs', async () => {
      const visited = await visit()
      return visited.kid === next ? visited : undefined
    })
    const known = followed.filter(({ id }) => id === old)
    assert.throws(() => read(known), { code: 'FLOW_IDENTITY_INVALID' }, 'whoever does not follow')

    const ended = await rotate('--unsafe-end-overlap')
    assert.equal(ended.code, 0, ended.stderr)
    await until('the old one is gone', async () => (await fetchKeys()).map(({ id }) => id).join() === next)
    assert.equal(
      readFlowIdentity(header, expected()).email,
      'ann@mycorp.com',
      'it was good under the old one',
    )
    const current = await fetchKeys()
    assert.throws(() => readFlowIdentity(header, { ...expected(), keys: current }), {
      code: 'FLOW_IDENTITY_INVALID',
    })
  })
})
