import assert from 'node:assert/strict'
import { X509Certificate } from 'node:crypto'
import { once } from 'node:events'
import { readFileSync, writeFileSync } from 'node:fs'
import { connect as connectTcp, type Socket } from 'node:net'
import path from 'node:path'
import { after, before, beforeEach, describe, test } from 'node:test'
import { ALPN_DATA, ALPN_FLOW } from '@postern/shared/protocol/frames'
import { FramedEnd } from '@postern/shared/stream/framed-end'
import { type ConnectedService, connectService } from './support/connect-service.ts'
import { startEdgeProxyCutting } from './support/cutting-proxy.ts'
import { logIn, makePerson } from './support/dev-browser.ts'
import { type EdgeProcess, startEdge } from './support/edge-process.ts'
import { runPostern, spawnPostern } from './support/postern.ts'
import { startEcho, startTcpService, type TcpService } from './support/tcp-services.ts'
import { makeTempFolder } from './support/temp-folder.ts'
import {
  attempt,
  CLOSED_WITHOUT_A_WORD,
  clientCertificateOf,
  dial,
  dialOver,
  forgeCertificate,
  type KeyAndCertificate,
} from './support/tls-peer.ts'
import { until, within } from './support/until.ts'

/** What TLS itself offers to somebody who bends it: resumption, chains, endings, names. Split and oversized
 *  ClientHellos are tested beside packages/edge/src/flow/client-hello.ts and ingress.ts. */

let edge: EdgeProcess
let echo: TcpService
let service: ConnectedService
let other: ConnectedService
let home: string
let good: KeyAndCertificate

before(async () => {
  edge = await startEdge()
  echo = await startEcho()
  home = await makePerson(edge, 'operator@mycorp.com')
  service = await connectService({ home, port: echo.port, name: 'one' })
  other = await connectService({ home, port: echo.port, name: 'two' })
})
after(async () => {
  await service?.[Symbol.asyncDispose]()
  await other?.[Symbol.asyncDispose]()
  await echo?.[Symbol.asyncDispose]()
  await edge?.[Symbol.asyncDispose]()
})
beforeEach(async () => {
  good = await getCertificate(home, service)
})

async function getCertificate(person: string, { host, label }: ConnectedService) {
  const { code, stderr } = await runPostern(['client', 'tls', '--host', host, '--batch'], { home: person })
  assert.equal(code, 0, stderr)
  return clientCertificateOf(person, label)
}

/** Makes a flow and keeps whatever it could be resumed from. */
async function collectSessions(serverName: string, alpn?: string, identity?: KeyAndCertificate) {
  const socket = dial(edge, { serverName, ...(alpn ? { alpn } : {}), ...(identity ? { identity } : {}) })
  const sessions: Buffer[] = []
  socket.on('session', (session) => sessions.push(session))
  socket.on('error', () => {})
  await within('a handshake', once(socket, 'secureConnect'))
  const closed = once(socket, 'close')
  const answered = once(socket, 'data')
  const hello = alpn ? Buffer.from([1, 0, 0, 5, ...Buffer.from('hello')]) : 'GET / HTTP/1.1\r\n\r\n'
  socket.write(hello)
  // then the service has been reached, and nothing of this flow is counted later
  await within('an answer', answered)
  socket.resume().end()
  await within('the edge closes', closed)
  const last = socket.getSession()
  if (last) sessions.push(last)
  return sessions
}

/** Whether anything came of it: bytes of the service, or a resumed session. */
async function opensFlow(session: Buffer, identity?: KeyAndCertificate, serverName = service.host) {
  for (const alpn of [ALPN_FLOW, undefined]) {
    const options = { serverName, session, ...(alpn ? { alpn } : {}), ...(identity ? { identity } : {}) }
    if ((await within('the edge closes', attempt(edge, options))).bytes !== '') return true
  }
  return false
}

describe('session tickets', () => {
  test('of another room open no flow without a certificate, nor with another one', async () => {
    const foreign = await getCertificate(home, other)
    const rooms = [
      await collectSessions(edge.domain),
      await collectSessions(other.host, undefined, foreign),
      await collectSessions(service.host, undefined, good),
      await collectSessions(service.host, ALPN_FLOW, good),
    ]
    assert.ok(rooms[0]!.length > 0, 'the sign-in pages give tickets')
    const seen = echo.connections.length
    for (const session of rooms.flat()) {
      assert.equal(await opensFlow(session), false)
      assert.equal(await opensFlow(session, foreign), false)
    }
    assert.equal(echo.connections.length, seen)
  })

  test('after the revocation of their certificate: nothing', async () => {
    const ann = await makePerson(edge, 'ann@mycorp.com')
    const identity = await getCertificate(ann, service)
    const sessions = await collectSessions(service.host, undefined, identity)
    assert.equal((await runPostern(['logout'], { home: ann })).code, 0)
    for (const session of sessions) {
      assert.equal(await opensFlow(session, identity), false)
      assert.equal(await opensFlow(session), false)
    }
    const { code } = await attempt(edge, { serverName: service.host, alpn: ALPN_FLOW, identity })
    assert.match(String(code), /SESSION_ENDED|CERTIFICATE_REVOKED/)
  })

  test('after the expiry of their certificate: nothing', async () => {
    const config = { certificates: { ttl: '8s', backdate: '0s' } }
    await using brief = await startEdge({ config })
    const person = makeTempFolder('home')
    await logIn(brief, person, 'operator@mycorp.com')
    await using exposed = await connectService({ home: person, port: echo.port })
    // a certificate this short is made anew for every flow, so the stored one is the last
    const identity = await getCertificate(person, exposed)
    const end = new X509Certificate(identity.cert).validToDate.getTime()
    const socket = dial(brief, { serverName: exposed.host, identity })
    const sessions: Buffer[] = []
    socket.on('session', (session) => sessions.push(session)).on('error', () => {})
    socket.resume().end('hello')
    await once(socket, 'close')
    if (socket.getSession()) sessions.push(socket.getSession()!)
    await until('the certificate is over', () => Date.now() > end + 1_000)
    const seen = echo.connections.length
    for (const session of [undefined, ...sessions]) {
      const options = { serverName: exposed.host, identity, ...(session ? { session } : {}) }
      assert.equal((await attempt(brief, options)).bytes, '')
    }
    assert.equal(echo.connections.length, seen)
  })
})

describe('chains and strangers', () => {
  test('a leaf that brings its own intermediate, or its own root: refused', async () => {
    const seen = echo.connections.length
    const files = (kind: string) => path.join(edge.dataDir, 'ca', `${kind}-ca`)
    const subjectAltName = new X509Certificate(good.cert).subjectAltName!.replaceAll(', ', ',')
    for (const kind of ['connector', 'edge']) {
      const ca = { certificate: `${files(kind)}.pem`, key: `${files(kind)}.key` }
      const leaf = forgeCertificate({ ca, subjectAltName })
      const identity = { ...leaf, cert: leaf.cert + readFileSync(ca.certificate, 'utf8') }
      assert.equal((await attempt(edge, { serverName: service.host, identity })).bytes, '')
      const framed = await attempt(edge, { serverName: service.host, identity, alpn: ALPN_FLOW })
      assert.equal(framed.bytes, '')
      assert.match(String(framed.code), CLOSED_WITHOUT_A_WORD)
    }
    // a client certificate is no CA, whatever it signs
    const ca = { certificate: path.join(makeTempFolder('leaf'), 'leaf.pem'), key: '' }
    ca.key = ca.certificate.replace('.pem', '.key')
    writeFileSync(ca.certificate, good.cert)
    writeFileSync(ca.key, good.key)
    const leaf = forgeCertificate({ ca, subjectAltName })
    const identity = { ...leaf, cert: leaf.cert + good.cert }
    assert.equal((await attempt(edge, { serverName: service.host, identity })).bytes, '')
    // and one that the store does not know, signed by the right CA
    const right = { certificate: `${files('client')}.pem`, key: `${files('client')}.key` }
    const unknown = forgeCertificate({ ca: right, subjectAltName })
    const refused = await attempt(edge, { serverName: service.host, alpn: ALPN_FLOW, identity: unknown })
    assert.deepEqual(refused, { bytes: '', code: 'CERTIFICATE_REFUSED' })
    assert.equal(echo.connections.length, seen)
  })
})

describe('a bare FIN instead of close_notify', () => {
  /** A TLS client whose TCP connection the test can end behind its back. */
  async function openFlow(alpn: string | undefined) {
    const tcp = connectTcp({ host: '127.0.0.1', port: edge.port, allowHalfOpen: true })
    const socket = dialOver(edge, tcp, {
      serverName: service.host,
      identity: good,
      ...(alpn ? { alpn } : {}),
    })
    socket.on('error', () => {})
    await within('a handshake', once(socket, 'secureConnect'))
    return { tcp, socket }
  }
  const endBare = (tcp: Socket) => void tcp.end()

  test('from the client, framed: a cut, which the service sees as a reset', async () => {
    const index = echo.connections.length
    const { tcp, socket } = await openFlow(ALPN_FLOW)
    socket.resume()
    socket.write(Buffer.from([1, 0, 0, 5, ...Buffer.from('hello')]))
    const served = await within('the service is reached', echo.connection(index))
    await until('hello arrives', () => served.bytesRead === 5)
    endBare(tcp)
    assert.equal(await within('the service hears of it', served.ended), 'reset')
  })

  test('from the client, plain: an end of file, as documented', async () => {
    const index = echo.connections.length
    const { tcp, socket } = await openFlow(undefined)
    socket.resume()
    socket.write('hello')
    const served = await within('the service is reached', echo.connection(index))
    await until('hello arrives', () => served.bytesRead === 5)
    endBare(tcp)
    assert.equal(await within('the service hears of it', served.ended), 'end')
  })

  test('towards the client, framed: postern calls it a cut', async () => {
    await using source = await startTcpService(({ socket }) => void socket.write('half of it'))
    await using cut = await connectService({ home, port: source.port, name: 'cut' })
    await using proxy = await startEdgeProxyCutting(edge)
    const identity = await getHeldCertificate(cut)
    const tcp = connectTcp({ host: '127.0.0.1', port: proxy.port, allowHalfOpen: true })
    const socket = dialOver(edge, tcp, { serverName: cut.host, alpn: ALPN_FLOW, identity })
    socket.on('error', () => {})
    let bytes = ''
    const ending = new Promise<string>((resolve) => {
      const end = new FramedEnd(socket)
      end.receive({
        chunk(chunk) {
          bytes += chunk
          if (bytes === 'half of it') proxy.endBare()
        },
        end: () => resolve('end'),
        drain: () => {},
        cut: ({ code }) => resolve(code),
      })
      end.resume()
    })
    assert.equal(await within('the client hears of it', ending), 'FLOW_CUT')
    assert.equal(bytes, 'half of it')
  })

  /** The service says nothing more after its first words, so `client tls` is not waited for. */
  async function getHeldCertificate({ host, label }: ConnectedService) {
    await using program = spawnPostern(['client', 'tls', '--host', host, '--batch'], { home })
    await program.output(({ stdout }) => (stdout === 'half of it' ? true : undefined))
    return clientCertificateOf(home, label)
  }
})

describe('names that differ', () => {
  test('no SNI, a foreign one, a sub-name and a protocol of another room: closed', async () => {
    const seen = echo.connections.length
    for (const options of [
      { serverName: '' },
      { serverName: `x.${service.host}` },
      { serverName: `${service.host}.evil.example` },
      { serverName: service.host, alpn: ALPN_DATA },
      { serverName: service.host, alpn: 'http/1.1' },
      { serverName: edge.domain, alpn: ALPN_FLOW },
      { serverName: `mtls.${edge.domain}`, alpn: ALPN_FLOW },
      { serverName: `mtls.${edge.domain}`, alpn: ALPN_DATA },
    ]) {
      assert.equal((await attempt(edge, { ...options, identity: good })).bytes, '', JSON.stringify(options))
    }
    assert.equal(echo.connections.length, seen)
    assert.equal(
      (await attempt(edge, { serverName: service.host.toUpperCase(), identity: good })).bytes,
      'hello',
    )
  })
})
