import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { existsSync, globSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer, type Socket } from 'node:net'
import path from 'node:path'
import { after, before, describe, test } from 'node:test'
import { quoteForShell } from '../demo/dev-login.ts'
import { findFreePort } from '../demo/free-port.ts'
import { Program } from '../demo/program.ts'
import { type ConnectedService, connectService } from './support/connect-service.ts'
import { logIn, makeDevBrowser, makePerson } from './support/dev-browser.ts'
import { type EdgeProcess, startEdge } from './support/edge-process.ts'
import { connectTo, endOfRefused, readToEnd, startListener } from './support/listen.ts'
import { runPostern, spawnPostern } from './support/postern.ts'
import { endSessionUnnoticed } from './support/stored-session.ts'
import {
  patternChunks,
  patternHash,
  startEcho,
  startLateAnswer,
  startSink,
  startTcpService,
  type TcpService,
} from './support/tcp-services.ts'
import { until, within } from './support/until.ts'

const MIB = 1024 * 1024
const NOBODY = 65_534

let edge: EdgeProcess
let echo: TcpService
let operator: string
let service: ConnectedService

before(async () => {
  edge = await startEdge()
  echo = await startEcho()
  operator = await makePerson(edge, 'operator@mycorp.com')
  service = await connectService({ home: operator, port: echo.port, name: 'echo' })
})
after(async () => {
  await service?.[Symbol.asyncDispose]()
  await echo?.[Symbol.asyncDispose]()
  await edge?.[Symbol.asyncDispose]()
})

const sha256 = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex')

/** Sends the text and waits until it has come back. */
async function echoes(socket: Socket, text: string): Promise<void> {
  let heard = ''
  const back = new Promise<void>((resolve, reject) => {
    const onData = (chunk: Buffer) => {
      heard += chunk
      if (heard !== text) return
      socket.off('data', onData)
      resolve()
    }
    socket.on('data', onData)
    socket.once('error', reject)
    socket.once('end', () => reject(new Error('the connection ended')))
  })
  socket.write(text)
  await within(`${text} comes back`, back)
}

/** The stored certificate has no time left, as after some minutes. */
function runOutCertificate(home: string): void {
  const [file] = globSync(path.join(home, 'edges', '*', 'certificates', '*.json'))
  writeFileSync(file!, JSON.stringify({ ...JSON.parse(readFileSync(file!, 'utf8')), notAfter: Date.now() }))
}

test('somebody who is not admitted gets no port, and the service hears nothing', async () => {
  await using stranger = await startTcpService(() => {})
  await using closed = await connectService({
    home: operator,
    port: stranger.port,
    name: 'closed',
    allowedEmailAddresses: ['operator@mycorp.com'],
  })
  const home = await makePerson(edge, 'other@mycorp.com')
  const port = await findFreePort()
  const args = ['client', 'listen', '--host', closed.host, '--local', String(port)]
  const { code, stderr } = await runPostern(args, { home })
  assert.equal(code, 5)
  assert.match(stderr, /ACCESS_DENIED/)
  await assert.rejects(connectTo(port), { code: 'ECONNREFUSED' })
  assert.equal(stranger.connections.length, 0)
})

describe('bytes', () => {
  test('the answer to an end of file arrives whole', async () => {
    await using late = await startLateAnswer({ pauseMs: 500, answerBytes: 16 * MIB })
    await using connected = await connectService({ home: operator, port: late.port, name: 'late' })
    await using listener = await startListener({ home: operator, host: connected.host })
    const socket = await connectTo(listener.port)
    socket.end('hello')
    const { bytes, ending } = await within('the answer', readToEnd(socket))
    assert.equal(ending, 'end')
    assert.equal(sha256(bytes), patternHash(16 * MIB))
    const seen = await late.connection()
    assert.deepEqual([seen.ending, seen.bytesRead], ['end', 5])
    const closed = await listener.event('flow.closed')
    assert.deepEqual([closed.bytesUp, closed.bytesDown, closed.error], [5, 16 * MIB, undefined])
  })

  test('a service that does not read holds the local program back, and gets everything in the end', async () => {
    await using slow = await startTcpService(({ socket }) => void socket.on('end', () => socket.end()), {
      read: false,
    })
    await using connected = await connectService({ home: operator, port: slow.port, name: 'slow' })
    await using listener = await startListener({ home: operator, host: connected.host })
    const socket = await connectTo(listener.port)
    const total = 192 * MIB
    for (const chunk of patternChunks(total)) socket.write(chunk)
    socket.end()
    const handedOver = () => socket.bytesWritten - socket.writableLength
    let [before, seenAt] = [-1, 0]
    await until('nothing more is taken for two seconds', () => {
      if (handedOver() !== before) [before, seenAt] = [handedOver(), performance.now()]
      return before > 0 && performance.now() - seenAt > 2_000
    })
    assert.ok(handedOver() < total / 2, `${handedOver()} bytes were taken`)
    const { socket: reading } = await slow.connection()
    const hash = createHash('sha256')
    reading.on('data', (chunk) => hash.update(chunk)).resume()
    assert.equal((await within('the end', readToEnd(socket))).ending, 'end')
    assert.equal(hash.digest('hex'), patternHash(total))
  })
})

describe('a cut is never an end of file', () => {
  test('the service resets: so does the local connection, and the other one goes on', async () => {
    await using listener = await startListener({ home: operator, host: service.host })
    const index = echo.connections.length
    const cut = await connectTo(listener.port)
    await echoes(cut, 'one')
    const other = await connectTo(listener.port)
    await echoes(other, 'two')
    const { socket } = await echo.connection(index)
    socket.resetAndDestroy()
    assert.equal((await within('the reset', readToEnd(cut))).ending, 'ECONNRESET')
    const closed = await listener.event('flow.closed')
    assert.deepEqual([closed.error, closed.cutBy], ['FLOW_CUT', 'service'])
    await echoes(other, 'still here')
    other.destroy()
  })

  test('the local program resets: the service sees a reset', async () => {
    await using listener = await startListener({ home: operator, host: service.host })
    const index = echo.connections.length
    const socket = await connectTo(listener.port)
    await echoes(socket, 'one')
    socket.resetAndDestroy()
    assert.equal(await within('the service hears of it', (await echo.connection(index)).ended), 'reset')
    assert.equal((await listener.event('flow.closed')).cutBy, 'program')
  })

  test('the edge is killed and comes back: connections are reset, new ones work', async () => {
    const first = await startEdge({ keepsPort: true })
    const home = await makePerson(first, 'operator@mycorp.com')
    await using connected = await connectService({ home, port: echo.port })
    await using listener = await startListener({ home, host: connected.host })
    const socket = await connectTo(listener.port)
    await echoes(socket, 'one')
    const ended = readToEnd(socket)
    await first.kill9()
    assert.equal((await within('the reset', ended)).ending, 'ECONNRESET')

    assert.equal(await within('a reset', endOfRefused(listener.port)), 'ECONNRESET')
    assert.equal((await listener.event('flow.refused')).code, 'EDGE_UNREACHABLE')

    await using _edge = await startEdge({ dataDir: first.dataDir, port: first.port })
    await connected.event('reconnected', undefined, 60_000)
    const again = await connectTo(listener.port)
    await echoes(again, 'two')
    again.destroy()
  })

  test('SIGTERM resets what runs and ends with 0', async () => {
    await using listener = await startListener({ home: operator, host: service.host })
    const socket = await connectTo(listener.port)
    await echoes(socket, 'one')
    const ended = readToEnd(socket)
    const { code } = await listener.program.stop('SIGTERM')
    assert.equal(code, 0)
    assert.equal((await ended).ending, 'ECONNRESET')
    await assert.rejects(connectTo(listener.port), { code: 'ECONNREFUSED' })
  })

  test('a service that is down is told on stderr with its code, and the port stays', async () => {
    await using sink = await startSink()
    const { port } = sink
    await sink[Symbol.asyncDispose]()
    await using connected = await connectService({ home: operator, port, name: 'down' })
    await using program = spawnPostern(['client', 'listen', '--host', connected.host, '--local', '0'], {
      home: operator,
    })
    const [, local] = await program.matches(/is at 127\.0\.0\.1:(\d+)/)
    for (let attempt = 0; attempt < 2; attempt++) {
      assert.equal(await within('a reset', endOfRefused(Number(local))), 'ECONNRESET')
    }
    await program.matches(/(SERVICE_REFUSED.*){2}/s)
    assert.equal(program.stdout, '')
  })
})

describe('only the user who started it', () => {
  /** bash as another user, which says hello to the port and prints the answer. */
  function sayHelloAs(user: number, port: number): Program {
    const script = `exec 3<>/dev/tcp/127.0.0.1/${port} && echo hello >&3 && head -n1 <&3`
    const drop = ['setpriv', `--reuid=${user}`, `--regid=${user}`, '--clear-groups', 'bash', '-c', script]
    const [command = '', ...args] = process.getuid?.() === 0 ? drop : ['sudo', '-n', ...drop]
    return new Program(command, args, { stdin: '' })
  }

  test('a program of another user is cut off before the service hears of it; our own is served', async () => {
    await using listener = await startListener({ home: operator, host: service.host })
    const before = echo.connections.length
    const foreign = await within('the other user is done', sayHelloAs(NOBODY, listener.port).ended)
    assert.equal(foreign.stdout, '', foreign.stderr)
    const refused = await listener.event('user.refused')
    assert.equal(refused.code, 'LOCAL_USER_REFUSED')
    assert.match(String(refused.message), /of user 65534 was refused/)
    const own = await within('our own is done', sayHelloAs(process.getuid!(), listener.port).ended)
    assert.equal(own.stdout, 'hello\n', own.stderr)
    assert.equal(echo.connections.length, before + 1)
  })

  test('--unsafe-any-local-user lifts it', async () => {
    const args = ['--unsafe-any-local-user']
    await using listener = await startListener({ home: operator, host: service.host, args })
    const foreign = await within('the other user is done', sayHelloAs(NOBODY, listener.port).ended)
    assert.equal(foreign.stdout, 'hello\n', foreign.stderr)
  })

  test('other machines reach nothing unless it is asked for, in words that say what it is', async () => {
    const listen = ['client', 'listen', '--host', service.host]
    for (const local of ['0.0.0.0:0', '[::]:0', '192.0.2.1:5432']) {
      const { code, stderr } = await runPostern([...listen, '--local', local], { home: operator })
      assert.equal(code, 2, stderr)
      assert.match(stderr, /USAGE_INVALID.*--unsafe-listen-all/s)
    }
    const args = ['--local', '0.0.0.0:0', '--unsafe-listen-all']
    await using listener = await startListener({ home: operator, host: service.host, args })
    assert.equal((await listener.event('ready')).address, '0.0.0.0')
  })
})

describe('a port that cannot be had', () => {
  test('taken, not of this machine, no port at all: each says so', async () => {
    const taken = createServer().listen(0, '127.0.0.1')
    await once(taken, 'listening')
    const { port } = taken.address() as { port: number }
    const cases: [string, number, RegExp][] = [
      [String(port), 1, /127\.0\.0\.1, port \d+: another program listens there \(LISTEN_FAILED\)/],
      ['192.0.2.1:0 --unsafe-listen-all', 1, /this machine has no such address \(LISTEN_FAILED\)/],
      ['db:5432', 2, /USAGE_INVALID/],
    ]
    for (const [local, exitCode, message] of cases) {
      const args = ['client', 'listen', '--host', service.host, '--local', ...local.split(' ')]
      const { code, stderr } = await runPostern(args, { home: operator })
      assert.equal(code, exitCode, stderr)
      assert.match(stderr, message)
    }
    taken.close()
  })
})

describe('what lasts longer than a certificate', () => {
  test('a new one is taken under a live connection, which does not notice', async () => {
    const home = await makePerson(edge, 'dev@mycorp.com')
    await using listener = await startListener({ home, host: service.host })
    const live = await connectTo(listener.port)
    await echoes(live, 'one')
    runOutCertificate(home)
    const later = await connectTo(listener.port)
    await echoes(later, 'two')
    await until('two certificates were taken', () => {
      return listener.events().filter(({ event }) => event === 'renewed').length === 2
    })
    await echoes(live, 'three')
    live.destroy()
    later.destroy()
  })

  test('a login that ran out is asked for once, and the connections that wait are served', async () => {
    const home = await makePerson(edge, 'dev@mycorp.com')
    const opened = path.join(home, 'pages-opened')
    const browser = await makeDevBrowser(edge, home, 'dev@mycorp.com')
    const counting = path.join(home, 'counting-browser')
    const line = `echo page >> ${quoteForShell(opened)}; exec ${quoteForShell(browser)} "$@"`
    writeFileSync(counting, `#!/bin/sh\n${line}\n`, { mode: 0o755 })
    const args = ['--browser', quoteForShell(counting)]
    await using listener = await startListener({ home, host: service.host, args })
    const live = await connectTo(listener.port)
    await echoes(live, 'one')
    const ended = readToEnd(live)
    await endSessionUnnoticed(home)
    assert.equal((await within('the flow of the session is cut', ended)).ending, 'ECONNRESET')
    const closed = await listener.event('flow.closed')
    assert.deepEqual([closed.error, closed.cutBy], ['FLOW_REVOKED', 'service'])
    const waiting = await Promise.all(Array.from({ length: 5 }, () => connectTo(listener.port)))
    await Promise.all(waiting.map((socket, index) => echoes(socket, `waited ${index}`)))
    assert.equal(readFileSync(opened, 'utf8'), 'page\n')
    const asked = listener.events().filter(({ event }) => event === 'sign-in.needed')
    assert.deepEqual(
      asked.map(({ code }) => code),
      ['SESSION_ENDED'],
    )
    for (const socket of waiting) socket.destroy()
  })

  test('with nobody to ask it says how to sign in, and goes on once somebody has', async () => {
    const home = await makePerson(edge, 'dev@mycorp.com')
    const args = ['client', 'listen', '--host', service.host, '--local', '0', '--batch']
    await using program = spawnPostern(args, { home })
    const [, port] = await program.matches(/is at 127\.0\.0\.1:(\d+)/)
    await endSessionUnnoticed(home)
    assert.equal(await within('a reset', endOfRefused(Number(port))), 'ECONNRESET')
    await program.matches(/\(SESSION_ENDED\)\n {2}sign in: postern login --edge https:\/\/edge\.localhost/)
    await logIn(edge, home, 'dev@mycorp.com')
    const served = await connectTo(Number(port))
    await echoes(served, 'back')
    served.destroy()
  })

  test('without a session it does not begin: exit 4, and no port', async () => {
    const home = await makePerson(edge, 'dev@mycorp.com')
    rmSync(globSync(path.join(home, 'edges', '*', 'session.json'))[0]!)
    const args = ['client', 'listen', '--host', service.host, '--local', '0']
    const { code, stderr } = await runPostern(args, { home })
    assert.equal(code, 4)
    assert.ok(stderr.includes(`postern login --edge ${edge.origin}`), stderr)
    assert.equal(existsSync(path.join(home, 'browser-was-started')), false)
  })
})
