import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { createServer } from 'node:net'
import path from 'node:path'
import { after, before, beforeEach, describe, test } from 'node:test'
import { Program } from '../demo/program.ts'
import { type ConnectedService, connectService } from './support/connect-service.ts'
import { makePerson } from './support/dev-browser.ts'
import { type EdgeProcess, startEdge } from './support/edge-process.ts'
import { runPostern } from './support/postern.ts'
import { makeSshMachine, type SshMachine } from './support/sshd.ts'
import { startEcho, type TcpService } from './support/tcp-services.ts'
import { makeTempFolder } from './support/temp-folder.ts'
import { until } from './support/until.ts'

/** `ssh-keysign --agent` against a real ssh-agent, and against sockets that only look like one. */

let edge: EdgeProcess
let echo: TcpService
let first: ConnectedService
let second: ConnectedService
let operator: string

before(async () => {
  edge = await startEdge()
  echo = await startEcho()
  operator = await makePerson(edge, 'operator@mycorp.com')
  first = await connectService({ home: operator, port: echo.port, name: 'first' })
  second = await connectService({ home: operator, port: echo.port, name: 'second' })
})
after(async () => {
  for (const part of [first, second, echo, edge]) await part?.[Symbol.asyncDispose]()
})

let machine: SshMachine

async function startAgent(): Promise<{ socket: string } & AsyncDisposable> {
  const socket = path.join(makeTempFolder('agent'), 'a')
  const program = new Program('ssh-agent', ['-D', '-a', socket])
  await program.matches(/SSH_AUTH_SOCK=/)
  return { socket, [Symbol.asyncDispose]: () => program[Symbol.asyncDispose]() }
}

function sign(socket: string | undefined, host: string, args: readonly string[] = [], env: object = {}) {
  const words = ['client', 'ssh-keysign', '--agent', '--host', host, ...args]
  const own = { ...machine.env, ...(socket === undefined ? {} : { SSH_AUTH_SOCK: socket }), ...env }
  return new Program('postern', words, { env: own, stdin: '' }).ended
}

/** Lines of `ssh-add -l`. */
function listed(socket: string): string[] {
  const env = { ...process.env, SSH_AUTH_SOCK: socket }
  const { stdout } = spawnSync('ssh-add', ['-l'], { env, encoding: 'utf8' })
  return stdout.split('\n').filter((line) => line !== '' && !line.startsWith('The agent has no'))
}

function add(socket: string, comment: string): void {
  const file = path.join(makeTempFolder('key'), 'key')
  spawnSync('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-C', comment, '-f', file])
  spawnSync('ssh-add', ['-q', file], { env: { ...process.env, SSH_AUTH_SOCK: socket } })
}

const makeMachine = async () => {
  machine = makeSshMachine(await makePerson(edge, 'ann@mycorp.com'))
}

describe('one key for each host', () => {
  beforeEach(makeMachine)

  test('after ten logins, and after twenty at once; other keys stay', async () => {
    await using agent = await startAgent()
    add(agent.socket, 'mine')
    add(agent.socket, `for ${first.host}`)
    for (let round = 0; round < 5; round++) {
      // another kind of key each time: the one before is of no use any more
      const kind = round % 2 === 0 ? 'ed25519' : 'ecdsa'
      const done = await sign(agent.socket, first.host, ['--key-type', kind])
      assert.deepEqual([done.code, done.stdout, done.stderr], [0, '', ''])
    }
    for (let round = 0; round < 5; round++) assert.equal((await sign(agent.socket, first.host)).code, 0)
    const ours = () => listed(agent.socket).filter((line) => line.includes(`postern ${first.host}`))
    assert.equal(ours().length, 1)
    assert.match(ours()[0]!, /ED25519-CERT/)
    const all = await Promise.all(Array.from({ length: 20 }, () => sign(agent.socket, second.host)))
    for (const { code, stderr } of all) assert.deepEqual([code, stderr], [0, ''])
    assert.equal(listed(agent.socket).length, 4, listed(agent.socket).join('\n'))
    assert.ok(!existsSync(path.join(machine.sshFolder, first.host)), 'a file')
  })

  test('a fresh one is left as it is, and one that somebody took away comes again', async () => {
    await using agent = await startAgent()
    await sign(agent.socket, first.host)
    const before = listed(agent.socket)
    await sign(agent.socket, first.host)
    assert.deepEqual(listed(agent.socket), before)
    spawnSync('ssh-add', ['-q', '-D'], { env: { ...process.env, SSH_AUTH_SOCK: agent.socket } })
    await sign(agent.socket, first.host)
    assert.equal(listed(agent.socket).length, 1)
  })

  test('gone when the certificate ends, and when the person logs out', async () => {
    const short = await startEdge({ config: { ssh: { ttl: '15s' } } })
    await using _edge = short
    const home = await makePerson(short, 'ann@mycorp.com')
    await using service = await connectService({ home, port: echo.port })
    machine = makeSshMachine(home)
    await using agent = await startAgent()
    add(agent.socket, 'mine')
    assert.equal((await sign(agent.socket, service.host)).code, 0)
    assert.equal(listed(agent.socket).length, 2)
    await until('its lifetime is over', () => listed(agent.socket).length === 1)
    await sign(agent.socket, service.host)
    assert.equal(listed(agent.socket).length, 2)
    const done = await new Program('postern', ['logout'], {
      env: { ...machine.env, SSH_AUTH_SOCK: agent.socket },
      stdin: '',
    }).ended
    assert.equal(done.code, 0, done.stderr)
    assert.match(listed(agent.socket).join('\n'), /^[^\n]* mine [^\n]*$/)
  })
})

describe('agents that are none', () => {
  const issued = async () => {
    const { code, stdout, stderr } = await runPostern(['audit', 'list', '--json', '--limit', '1000'], {
      home: operator,
    })
    assert.equal(code, 0, stderr)
    return stdout.match(/certificate\.(issued|refused)/g)?.length ?? 0
  }
  let asked = 0
  before(async () => {
    await makeMachine()
    asked = await issued()
  })

  async function answering(
    bytes: Buffer | 'close' | 'nothing',
  ): Promise<{ socket: string } & AsyncDisposable> {
    const socket = path.join(makeTempFolder('agent'), 'a')
    const server = createServer((connection) => {
      connection.on('error', () => undefined)
      connection.on('data', () => {
        if (bytes === 'close') connection.destroy()
        else if (bytes !== 'nothing') connection.write(bytes)
      })
    })
    await new Promise<void>((resolve) => server.listen(socket, resolve))
    return { socket, [Symbol.asyncDispose]: async () => void server.close() }
  }
  const uint32 = (value: number) => Buffer.from(value.toString(16).padStart(8, '0'), 'hex')

  for (const [what, bytes] of Object.entries({
    'says nothing': 'nothing',
    'closes at once': 'close',
    'announces four gigabytes': uint32(0xffff_ffff),
    'announces nothing': uint32(0),
    fails: Buffer.concat([uint32(1), Buffer.of(5)]),
    'claims a million keys': Buffer.concat([uint32(5), Buffer.of(12), uint32(1_000_000)]),
    'claims a key that is not there': Buffer.concat([uint32(5), Buffer.of(12), uint32(1)]),
    'has a field longer than its message': Buffer.concat([uint32(9), Buffer.of(12), uint32(1), uint32(999)]),
  } as const)) {
    test(`${what}: one line, and the edge is not asked`, async () => {
      await using agent = await answering(bytes)
      const { code, stderr } = await sign(agent.socket, first.host)
      assert.equal(code, 1)
      assert.match(stderr, /^postern: the ssh-agent .*\(SSH_AGENT_FAILED\)\n {2}[^\n]+\n$/)
    })
  }

  test('there is none', async () => {
    for (const socket of [undefined, '/nowhere/agent']) {
      const { code, stderr } = await sign(socket, first.host)
      assert.equal(code, 1)
      assert.match(stderr, /SSH_AGENT_FAILED/)
    }
  })

  test('the edge was asked for nothing in all this', async () => {
    assert.ok(asked > 0)
    assert.equal(await issued(), asked)
  })
})
