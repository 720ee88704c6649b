import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import {
  chmodSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readFileSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { createServer } from 'node:net'
import path from 'node:path'
import { after, before, describe, test } from 'node:test'
import { Program } from '../demo/program.ts'
import { type ConnectedService, connectService } from './support/connect-service.ts'
import { makePerson } from './support/dev-browser.ts'
import { type EdgeProcess, startEdge } from './support/edge-process.ts'
import { connectTo, type Listener, readToEnd, startListener } from './support/listen.ts'
import { runPostern } from './support/postern.ts'
import {
  patternHash,
  startEcho,
  startLateAnswer,
  startSink,
  type TcpService,
} from './support/tcp-services.ts'
import { makeTempFolder } from './support/temp-folder.ts'
import { until, within } from './support/until.ts'

/** `postern client listen --local unix:PATH`. */

const MIB = 1024 * 1024
const NOBODY = 65_534

let edge: EdgeProcess
let echo: TcpService
let home: string
let service: ConnectedService

before(async () => {
  edge = await startEdge()
  echo = await startEcho()
  home = await makePerson(edge, 'operator@mycorp.com')
  service = await connectService({ home, port: echo.port, name: 'echo' })
})
after(async () => {
  await service?.[Symbol.asyncDispose]()
  await echo?.[Symbol.asyncDispose]()
  await edge?.[Symbol.asyncDispose]()
})

const sayHello = (file: string) => ['socat', '-t', '60', '-', `UNIX-CONNECT:${file}`]

/** The command as another user of this machine. */
function asUser(user: number, command: readonly string[]): Program {
  const drop = ['setpriv', `--reuid=${user}`, `--regid=${user}`, '--clear-groups', ...command]
  const [program = '', ...args] = process.getuid?.() === 0 ? drop : ['sudo', '-n', ...drop]
  return new Program(program, args, { stdin: 'hello\n' })
}

test('the socket is its owner’s alone, carries both ways, and goes with the listener', async () => {
  await using late = await startLateAnswer({ pauseMs: 200, answerBytes: 4 * MIB })
  await using connected = await connectService({ home, port: late.port, name: 'late' })
  const folder = makeTempFolder('sockets')
  chmodSync(folder, 0o755) // the file itself says who may come
  const file = path.join(folder, 'late.sock')
  await using listener = await startListener({ home, host: connected.host, local: `unix:${file}` })
  assert.equal((await listener.event('ready')).path, file)
  assert.equal(lstatSync(file).mode & 0o7777, 0o600)

  const foreign = await within('the other user is done', asUser(NOBODY, sayHello(file)).ended)
  assert.notEqual(foreign.code, 0)
  assert.match(foreign.stderr, /Permission denied/)
  assert.equal(late.connections.length, 0)

  const socket = await connectTo(file)
  socket.end('hello')
  const { bytes, ending } = await within('the answer', readToEnd(socket))
  assert.equal(ending, 'end')
  assert.equal(createHash('sha256').update(bytes).digest('hex'), patternHash(4 * MIB))
  assert.equal((await listener.event('flow.closed')).from, `unix:${file}`)

  assert.equal((await listener.program.stop('SIGTERM')).code, 0)
  assert.equal(existsSync(file), false)
})

test('a program that writes and leaves at once has been heard', async () => {
  await using sink = await startSink()
  await using connected = await connectService({ home, port: sink.port, name: 'sink' })
  const file = path.join(makeTempFolder('sockets'), 'sink.sock')
  await using _listener = await startListener({ home, host: connected.host, local: `unix:${file}` })
  const script = `import socket; s = socket.socket(socket.AF_UNIX); s.connect(${JSON.stringify(file)}); s.sendall(b"x" * 100000); s.close()`
  for (let round = 0; round < 3; round++) {
    const { code, stderr } = await new Program('python3', ['-c', script], { stdin: '' }).ended
    assert.equal(code, 0, stderr)
    const connection = await sink.connection(round)
    assert.equal(await within('the service has it', connection.ended), 'end')
    assert.equal(connection.bytesRead, 100_000)
  }
})

describe('what already has the name', () => {
  test('remains of a listener that was killed make way', async () => {
    const file = path.join(makeTempFolder('sockets'), 'echo.sock')
    const first = await startListener({ home, host: service.host, local: `unix:${file}` })
    await first.program.stop('SIGKILL')
    assert.ok(lstatSync(file).isSocket())
    await using _second = await startListener({ home, host: service.host, local: `unix:${file}` })
    const hello = await within(
      'the echo',
      new Program('sh', ['-c', `echo hello | ${sayHello(file).join(' ')}`]).ended,
    )
    assert.equal(hello.stdout, 'hello\n', hello.stderr)
  })

  test('of many that start on the same remains one has it, and the others say so', async () => {
    const file = path.join(makeTempFolder('sockets'), 'echo.sock')
    const first = await startListener({ home, host: service.host, local: `unix:${file}` })
    await first.program.stop('SIGKILL')
    const started = Array.from({ length: 4 }, () =>
      startListener({ home, host: service.host, local: `unix:${file}` }).catch((error: Error) => error),
    )
    const outcomes = await Promise.all(started)
    const running = outcomes.filter((outcome) => !(outcome instanceof Error))
    assert.equal(running.length, 1)
    for (const outcome of outcomes) {
      if (outcome instanceof Error)
        assert.match(outcome.message, /another program listens there \(LISTEN_FAILED\)/)
    }
    const hello = await within(
      'the echo',
      new Program('sh', ['-c', `echo hello | ${sayHello(file).join(' ')}`]).ended,
    )
    assert.equal(hello.stdout, 'hello\n', hello.stderr)
    for (const listener of running) await (listener as Listener)[Symbol.asyncDispose]()
  })

  test('a live socket, a file, a folder, a link and a folder open to all stay, each with its sentence', async () => {
    const folder = makeTempFolder('sockets')
    const inFolder = (name: string) => path.join(folder, name)
    const live = createServer((socket) => socket.destroy()).listen(inFolder('live'))
    await once(live, 'listening')
    writeFileSync(inFolder('file'), 'mine')
    mkdirSync(inFolder('folder'))
    symlinkSync(inFolder('file'), inFolder('link'))
    mkdirSync(inFolder('open'))
    chmodSync(inFolder('open'), 0o777)
    const cases: [string, number, RegExp][] = [
      [inFolder('live'), 1, /live: another program listens there \(LISTEN_FAILED\)/],
      [inFolder('file'), 1, /a file has that name, and stays as it is \(LISTEN_FAILED\)/],
      [inFolder('folder'), 1, /a folder has that name/],
      [inFolder('link'), 1, /a link has that name/],
      [inFolder('open/s'), 1, /everybody on this machine may write to that folder \(LISTEN_FAILED\)/],
      [inFolder('none/s'), 1, /there is no such folder \(LISTEN_FAILED\)/],
      [inFolder('x'.repeat(200)), 2, /more than \d+ bytes, which no socket can have \(USAGE_INVALID\)/],
      ['', 2, /does not name a file \(USAGE_INVALID\)/],
    ]
    for (const [file, exitCode, message] of cases) {
      const args = ['client', 'listen', '--host', service.host, '--local', `unix:${file}`]
      const { code, stderr } = await runPostern(args, { home })
      assert.equal(code, exitCode, stderr)
      assert.match(stderr, message)
      assert.match(stderr.trimEnd(), /\n {2}\S.*$/, 'the next step')
    }
    assert.equal(readFileSync(inFolder('file'), 'utf8'), 'mine')
    assert.ok(lstatSync(inFolder('live')).isSocket())
    live.close()
  })
})

test('a program that leaves a port at once is served, or its owner is told what to do', async () => {
  await using sink = await startSink()
  await using connected = await connectService({ home, port: sink.port, name: 'port sink' })
  await using listener = await startListener({ home, host: connected.host })
  const script = `import socket; s = socket.socket(); s.connect(("127.0.0.1", ${listener.port})); s.sendall(b"x"); s.close()`
  const { code, stderr } = await new Program('python3', ['-c', script], { stdin: '' }).ended
  assert.equal(code, 0, stderr)
  // which of the two depends on the kernel and on how busy the machine is
  await until('it was served or refused', () => {
    const refused = listener.events().find(({ event }) => event === 'user.refused')
    if (refused) assert.equal(refused.code, 'LOCAL_USER_UNKNOWN')
    if (refused) assert.match(String(refused.hint), /nc -N.*--local unix:PATH/)
    return refused ?? sink.connections.some(({ bytesRead }) => bytesRead === 1)
  })
  // one that waits for the other end always is
  const waiting = ['-N', '-w', '60', '127.0.0.1', String(listener.port)]
  const before = sink.connections.length
  const sent = await within('nc is done', new Program('nc.openbsd', waiting, { stdin: 'metric\n' }).ended)
  assert.equal(sent.code, 0, sent.stderr)
  const connection = await sink.connection(before)
  assert.equal(await within('the service has it', connection.ended), 'end')
  assert.equal(connection.bytesRead, 'metric\n'.length)
})
