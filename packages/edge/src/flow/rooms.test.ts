import assert from 'node:assert/strict'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import net, { type AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { after, before, beforeEach, describe, it } from 'node:test'
import tls, { type TLSSocket } from 'node:tls'
import { DOMAIN, Heard, newKey } from '../../test/edge-stage.ts'
import { type Authorities, createAuthorities } from '../ca/authorities.ts'
import { issueClientCertificate } from '../ca/issue-client.ts'
import { issueConnectorCertificate } from '../ca/issue-connector.ts'
import { issueEdgeCertificate } from '../ca/issue-edge.ts'
import { type ClientHello, peekClientHello } from './client-hello.ts'
import type { Room } from './ingress.ts'
import { type Entered, openRooms, type RefusedHandshake, type Rooms } from './rooms.ts'

const LABEL = `crimson-thunder-8434.${DOMAIN}`

interface Shown {
  key: string
  cert: string
}

let scratch: string
let authorities: Authorities
let rooms: Rooms
let server: net.Server
let client: Shown
let connector: Shown
let wrongKind: Shown
const heard = new Heard()
const entered: (Entered & { room: string })[] = []
const refused: RefusedHandshake[] = []
const requests: string[] = []
/** What the next connection is said to have peeked, and where it goes. */
let lie: { hello?: Partial<ClientHello>; room?: Room | undefined } = {}
let handshakesDone = 0

const hello = (serverName: string | undefined, ...alpn: string[]): ClientHello => ({ serverName, alpn })

before(async () => {
  scratch = mkdtempSync(path.join(tmpdir(), 'postern-rooms-'))
  authorities = await createAuthorities(scratch, Date.now())
  client = await leaf('client')
  connector = await leaf('connector')
  wrongKind = connector
  const identity = await issueEdgeCertificate(authorities.edge, DOMAIN, Date.now())
  const note = (room: string) => (arrival: Entered) => {
    entered.push({ ...arrival, room })
    heard.tell()
  }
  rooms = openRooms({
    maxHttpConnections: 100,
    maxHttpConnectionsPerAddress: 100,
    onHttpRefused() {},
    domain: DOMAIN,
    serverIdentity: { key: identity.key, cert: identity.certificate },
    clientCa: authorities.client.certificatePem,
    connectorCa: authorities.connector.certificatePem,
    workloadCa: authorities.workload.certificatePem,
    handshakeTimeoutMs: 5_000,
    httpLimits: { headersTimeout: 300, requestTimeout: 600, connectionsCheckingInterval: 50 },
    onHttps: (request, response) => {
      requests.push(request.url!)
      request.resume()
      request.on('end', () => response.end('hello'))
      request.on('error', () => {})
    },
    onMtls: (_request, response) => void response.end('mtls'),
    isHttpsUpgrade: () => false,
    onHttpsUpgrade: (_request, socket) => socket.destroy(),
    onMtlsUpgrade: (_request, socket) => socket.destroy(),
    onFlow: note('flow'),
    onData: note('data'),
    onRefused: (refusal) => {
      refused.push(refusal)
      heard.tell()
    },
  })
  server = net.createServer({ allowHalfOpen: true }, (socket) => {
    socket.on('error', () => {})
    socket.once('readable', () => {
      const bytes = socket.read() as Buffer
      socket.unshift(bytes)
      const peeked = peekClientHello(bytes) as ClientHello
      const room = lie.room ?? rooms.choose(peeked)
      if (!room) return socket.destroy()
      room.enter({
        socket,
        hello: { ...peeked, ...lie.hello },
        clientHost: '127.0.0.1',
        clientPort: 1,
        clientAddress: '127.0.0.1:1',
        isInside: false,
        edgeAddress: '127.0.0.1:2',
        arrivedAt: performance.now(),
        handshakeDone: () => handshakesDone++,
      })
    })
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
})
after(() => {
  rooms.close()
  server.close()
  for (const { tls } of entered) tls.destroy()
  rmSync(scratch, { recursive: true })
})
beforeEach(() => {
  lie = {}
  for (const { tls } of entered.splice(0)) tls.destroy()
  refused.splice(0)
})

async function leaf(kind: 'client' | 'connector'): Promise<Shown> {
  const { privateKey, publicKey } = newKey()
  const common = { domain: DOMAIN, publicKey, ttlMs: 60_000, backdateMs: 60_000 }
  const issued =
    kind === 'client'
      ? await issueClientCertificate(
          authorities.client,
          {
            ...common,
            email: 'dev@mycorp.com' as never,
            serviceId: 'svc_1',
            sessionExpiresAt: Date.now() + 60_000,
          },
          Date.now(),
        )
      : await issueConnectorCertificate(
          authorities.connector,
          { ...common, connectorId: 'con_1' },
          Date.now(),
        )
  return {
    key: privateKey.export({ type: 'pkcs8', format: 'pem' }).toString(),
    cert: issued.certificate,
  }
}

/** Dials; the socket may be refused later. */
async function dial(
  servername: string,
  ALPNProtocols: string[] | undefined,
  options: tls.ConnectionOptions = {},
): Promise<TLSSocket> {
  const { port } = server.address() as AddressInfo
  const socket = tls.connect({
    port,
    host: '127.0.0.1',
    servername,
    ca: authorities.edge.certificatePem,
    ...(ALPNProtocols ? { ALPNProtocols } : {}),
    ...options,
  })
  socket.on('error', () => {})
  await new Promise<void>((resolve) => {
    socket.once('secureConnect', resolve)
    socket.once('close', () => resolve())
  })
  return socket
}

const closed = (socket: TLSSocket) =>
  new Promise<void>((resolve) => {
    if (socket.closed) return resolve()
    socket.once('close', () => resolve())
    socket.resume()
  })
const nextEntered = () =>
  heard.until(
    () => entered.at(-1),
    () => `an entry, refused ${JSON.stringify(refused)}`,
  )
const nextRefused = () =>
  heard.until(
    () => refused[0],
    () => 'a refusal',
  )

describe('the table of rooms', () => {
  const table: [string | undefined, string[], string | undefined][] = [
    [DOMAIN, ['http/1.1'], 'https'],
    [DOMAIN, ['h2', 'http/1.1'], 'https'],
    [DOMAIN, [], 'https'],
    [DOMAIN, ['postern-data/1'], 'data'],
    [`mtls.${DOMAIN}`, ['http/1.1'], 'mtls'],
    [`mtls.${DOMAIN}`, [], 'mtls'],
    [LABEL, ['postern/1'], 'flow'],
    [LABEL, [], 'flow'],
    // everything else is closed
    [undefined, [], undefined],
    [undefined, ['http/1.1'], undefined],
    [undefined, ['postern-data/1'], undefined],
    [DOMAIN, ['h2'], undefined],
    [DOMAIN, ['postern/1'], undefined],
    [DOMAIN, ['acme-tls/1'], undefined],
    [`mtls.${DOMAIN}`, ['h2'], undefined],
    [`mtls.${DOMAIN}`, ['postern-data/1'], undefined],
    [`mtls.${DOMAIN}`, ['postern/1'], undefined],
    [LABEL, ['http/1.1'], undefined],
    [LABEL, ['h2'], undefined],
    [LABEL, ['h2', 'http/1.1'], undefined],
    [LABEL, ['postern-data/1'], undefined],
    [LABEL, ['acme-tls/1'], undefined],
    [LABEL, ['postern/2'], undefined],
    [`www.${DOMAIN}`, [], undefined],
    [`a.b.${DOMAIN}`, ['postern/1'], undefined],
    [`-a.${DOMAIN}`, [], undefined],
    [`${LABEL}.`, [], undefined],
    [`${DOMAIN}.`, ['http/1.1'], undefined],
    [`xn--a.${DOMAIN}`, [], undefined],
    [`.${DOMAIN}`, [], undefined],
    [`evil${DOMAIN}`, [], undefined],
    ['localhost', [], undefined],
    ['127.0.0.1', ['http/1.1'], undefined],
    [`${LABEL}.evil.com`, [], undefined],
  ]
  for (const [serverName, alpn, expected] of table) {
    it(`${serverName ?? 'no name'} with ${alpn.join(', ') || 'no ALPN'} → ${expected ?? 'closed'}`, () => {
      assert.equal(rooms.choose(hello(serverName, ...alpn))?.name, expected)
    })
  }
})

describe('a room', () => {
  it('for flows enters a client certificate, with and without ALPN', async () => {
    for (const alpn of [['postern/1'], undefined]) {
      const socket = await dial(LABEL, alpn, client)
      const { room, hello, tls } = await nextEntered()
      assert.equal(room, 'flow')
      assert.deepEqual(hello, { serverName: LABEL, alpn: alpn ?? [] })
      assert.equal(tls.getProtocol(), 'TLSv1.3')
      assert.equal(tls.allowHalfOpen, true)
      socket.destroy()
      entered.splice(0)
    }
  })

  it('tells that the handshake is done, in every room', async () => {
    const before = handshakesDone
    const sockets = [
      await dial(LABEL, undefined, client),
      await dial(DOMAIN, ['postern-data/1'], connector),
      await dial(DOMAIN, ['http/1.1']),
      await dial(`mtls.${DOMAIN}`, ['http/1.1'], connector),
    ]
    sockets[2]!.write(`GET / HTTP/1.1\r\nHost: ${DOMAIN}\r\n\r\n`)
    sockets[3]!.write(`GET / HTTP/1.1\r\nHost: mtls.${DOMAIN}\r\n\r\n`)
    await Promise.all([once(sockets[2]!, 'data'), once(sockets[3]!, 'data'), nextEntered()])
    assert.equal(handshakesDone - before, 4)
    for (const socket of sockets) socket.destroy()
  })

  const refusals: [string, string, string[] | undefined, () => tls.ConnectionOptions][] = [
    ['no certificate for a flow', LABEL, undefined, () => ({})],
    ['a connector certificate for a flow', LABEL, undefined, () => wrongKind],
    ['no certificate for a data connection', DOMAIN, ['postern-data/1'], () => ({})],
    ['a client certificate for a data connection', DOMAIN, ['postern-data/1'], () => client],
    ['no certificate for control', `mtls.${DOMAIN}`, ['http/1.1'], () => ({})],
    ['a client certificate for control', `mtls.${DOMAIN}`, ['http/1.1'], () => client],
    ['TLS 1.2 for a flow', LABEL, undefined, () => ({ ...client, maxVersion: 'TLSv1.2' })],
  ]
  for (const [what, name, alpn, options] of refusals) {
    it(`refuses ${what}`, async () => {
      const socket = await dial(name, alpn, options())
      await closed(socket)
      await nextRefused()
      assert.equal(entered.length, 0)
    })
  }

  it('closes a connection whose SNI or ALPN is not what was peeked', async () => {
    const flow = rooms.choose(hello(LABEL))!
    for (const told of [
      { serverName: `other-label-1000.${DOMAIN}` },
      { serverName: undefined },
      { alpn: ['postern/1'] },
    ]) {
      lie = { hello: told, room: flow }
      await closed(await dial(LABEL, undefined, client))
    }
    lie = { hello: { alpn: [] }, room: flow }
    await closed(await dial(LABEL, ['postern/1'], client))
    lie = { hello: { serverName: `mtls.${DOMAIN}` }, room: rooms.choose(hello(DOMAIN, 'http/1.1'))! }
    await closed(await dial(DOMAIN, ['http/1.1']))
    assert.equal(entered.length, 0)
  })

  it('survives clients that are cut off in their handshake and right after it', async () => {
    for (let round = 0; round < 40; round++) {
      const options = round % 2 ? client : wrongKind
      const { port } = server.address() as AddressInfo
      const raw = net.connect(port, '127.0.0.1')
      raw.on('error', () => {})
      const socket = tls.connect({
        socket: raw,
        servername: LABEL,
        ca: authorities.edge.certificatePem,
        ...options,
      })
      socket.on('error', () => {})
      if (round % 4 < 2) await once(raw, 'connect')
      else await once(socket, 'secureConnect')
      raw.resetAndDestroy()
      await once(raw, 'close')
    }
    await dial(LABEL, undefined, client)
    await nextEntered()
  })

  /** Everything that a client could try to resume from: tickets, and the session itself. */
  async function sessionsOf(): Promise<Buffer[]> {
    entered.splice(0)
    const { port } = server.address() as AddressInfo
    const ca = authorities.edge.certificatePem
    const socket = tls.connect({ port, host: '127.0.0.1', servername: LABEL, ca, ...client })
    const sessions: Buffer[] = []
    socket.on('session', (session) => sessions.push(session))
    const data = once(socket, 'data')
    const { tls: served } = await nextEntered()
    served.write('x') // behind every ticket
    await data
    sessions.push(socket.getSession()!)
    socket.destroy()
    return sessions
  }

  async function assertNotResumable(): Promise<void> {
    for (const session of await sessionsOf()) {
      const again = await dial(LABEL, undefined, { ...client, session })
      assert.equal(again.isSessionReused(), false)
      again.destroy()
      entered.splice(0)
      await closed(await dial(LABEL, undefined, { session }))
      assert.equal(entered.length, 0)
    }
  }

  it('resumes nothing', assertNotResumable)

  for (const version of ['TLSv1.2', 'TLSv1.3'] as const) {
    it(`answers who would resume a session of HTTPS with ${version}, and resumes nothing`, async () => {
      const ask = async (session?: Buffer) => {
        const socket = await dial(DOMAIN, ['http/1.1'], { maxVersion: version, ...(session && { session }) })
        const isReused = socket.isSessionReused()
        const sessions = [socket.getSession()!]
        socket.on('session', (given) => sessions.push(given))
        socket.write(`GET / HTTP/1.1\r\nHost: ${DOMAIN}\r\nConnection: close\r\n\r\n`)
        let answer = ''
        for await (const chunk of socket) answer += chunk
        assert.match(answer, /^HTTP\/1\.1 200/)
        return { isReused, sessions }
      }
      const { sessions } = await ask()
      for (const session of sessions) assert.equal((await ask(session)).isReused, false)
    })
  }

  it('uses a renewed server certificate at once, and is as strict as before', async () => {
    const renewed = await issueEdgeCertificate(authorities.edge, DOMAIN, Date.now())
    rooms.replaceServerIdentity({ key: renewed.key, cert: renewed.certificate })
    const doors: [string, string[] | undefined, Shown | undefined][] = [
      [LABEL, undefined, client],
      [DOMAIN, ['postern-data/1'], connector],
      [DOMAIN, ['http/1.1'], undefined],
      [`mtls.${DOMAIN}`, ['http/1.1'], connector],
    ]
    for (const [name, alpn, shown] of doors) {
      const socket = await dial(name, alpn, shown)
      assert.equal(socket.getPeerX509Certificate()?.serialNumber.toLowerCase(), renewed.serial)
      socket.destroy()
    }
    await assertNotResumable()
    await closed(await dial(LABEL, undefined, wrongKind))
    await closed(await dial(LABEL, undefined, { ...client, maxVersion: 'TLSv1.2' }))
  })
})

describe('the HTTP rooms', () => {
  it('end a request whose headers never end', async () => {
    const socket = await dial(DOMAIN, ['http/1.1'])
    socket.write(`GET /endless HTTP/1.1\r\nHost: ${DOMAIN}\r\n`)
    await closed(socket)
    assert.ok(!requests.includes('/endless'))
  })

  it('end a request whose body never ends', async () => {
    const socket = await dial(DOMAIN, ['http/1.1'])
    socket.write(`POST /slow HTTP/1.1\r\nHost: ${DOMAIN}\r\nContent-Length: 10\r\n\r\nx`)
    await closed(socket)
    assert.ok(requests.includes('/slow'))
  })

  it('refuse headers over 16 kB', async () => {
    const socket = await dial(DOMAIN, ['http/1.1'])
    socket.write(`GET /large HTTP/1.1\r\nHost: ${DOMAIN}\r\nX: ${'x'.repeat(17_000)}\r\n\r\n`)
    await closed(socket)
    assert.ok(!requests.includes('/large'))
  })

  it('end all connections when they close, busy ones too', async () => {
    const idle = await dial(DOMAIN, ['http/1.1'])
    idle.write(`GET /idle HTTP/1.1\r\nHost: ${DOMAIN}\r\n\r\n`)
    await once(idle, 'data')
    const busy = await dial(DOMAIN, ['http/1.1'])
    busy.write(`POST /busy HTTP/1.1\r\nHost: ${DOMAIN}\r\nContent-Length: 10\r\n\r\nx`)
    while (!requests.includes('/busy')) await new Promise(setImmediate)
    rooms.close()
    await Promise.all([closed(idle), closed(busy)])
  })
})
