import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { after, before, describe, test } from 'node:test'
import { type ConnectedService, connectService } from './support/connect-service.ts'
import { makePerson } from './support/dev-browser.ts'
import { type EdgeProcess, startEdge } from './support/edge-process.ts'
import { connectTo } from './support/listen.ts'
import { startNotifySocket } from './support/notify-socket.ts'
import { runPostern, spawnPostern } from './support/postern.ts'
import { startGreeter, type TcpService } from './support/tcp-services.ts'
import { makeTempFolder } from './support/temp-folder.ts'
import { until, within } from './support/until.ts'
import { startUserSystemd } from './support/user-systemd.ts'
import { verifyUnit } from './support/verify-unit.ts'

/** `postern client install-service` and `postern connector install-service`, under a real systemd. */

let edge: EdgeProcess
let greeter: TcpService
let home: string
let service: ConnectedService

before(async () => {
  edge = await startEdge()
  greeter = await startGreeter('hello\n')
  home = await makePerson(edge, 'operator@mycorp.com')
  service = await connectService({ home, port: greeter.port, name: 'greeter' })
})
after(async () => {
  await service?.[Symbol.asyncDispose]()
  await greeter?.[Symbol.asyncDispose]()
  await edge?.[Symbol.asyncDispose]()
})

/** A file with a listener at each of these sockets. */
function writeListeners(file: string, names: readonly string[], host = service.host): void {
  writeFileSync(
    file,
    `listeners:\n${names.map((name) => `- { host: ${host}, local: "unix:${name}" }\n`).join('')}`,
  )
}

async function greetingAt(file: string): Promise<string> {
  const socket = await connectTo(file)
  const [chunk] = await within('the greeting', once(socket, 'data'))
  socket.destroy()
  return String(chunk)
}

const unitOf = (name: string) => path.join(home, '.config', 'systemd', 'user', `${name}.service`)

test('listeners become a service that is ready, reads its file again, comes back, and goes', async () => {
  await using systemd = await startUserSystemd(home)
  const { env } = systemd
  const folder = makeTempFolder('listeners')
  const [list, first, second] = ['a list.yaml', 'first.sock', 'second.sock'].map((name) =>
    path.join(folder, name),
  )
  writeListeners(list!, ['first.sock'])
  const install = ['client', 'install-service', '-f', list!]
  const installed = await runPostern(install, { home, env, timeoutMs: 120_000 })
  assert.equal(installed.code, 0, installed.stderr)
  assert.match(installed.stderr, /postern-listen runs.*systemctl --user status postern-listen/s)
  assert.equal(await greetingAt(first!), 'hello\n')
  await systemd.shows('postern-listen', 'StatusText', /^1 listener$/)
  assert.equal(systemd.ask('is-enabled', 'postern-listen').trim(), 'enabled')

  writeListeners(list!, ['first.sock', 'second.sock'])
  await systemd.shows('postern-listen', 'StatusText', /^2 listeners$/)
  await systemd.shows('postern-listen', 'ActiveState', /^active$/)
  assert.equal(await greetingAt(second!), 'hello\n')

  const before = await systemd.shows('postern-listen', 'MainPID', /^[1-9]\d*$/)
  systemd.ask('kill', '--kill-who=main', '--signal=KILL', 'postern-listen')
  await systemd.shows('postern-listen', 'MainPID', new RegExp(`^(?!${before}$)[1-9]\\d*$`))
  await systemd.shows('postern-listen', 'ActiveState', /^active$/)
  assert.equal(await greetingAt(first!), 'hello\n')

  const again = await runPostern(install, { home, env, timeoutMs: 120_000 })
  assert.equal(again.code, 0, again.stderr)
  assert.equal(await greetingAt(first!), 'hello\n')

  const removed = await runPostern(['client', 'install-service', '--uninstall'], { home, env })
  assert.equal(removed.code, 0, removed.stderr)
  assert.match(removed.stderr, /postern-listen is gone/)
  assert.equal(existsSync(unitOf('postern-listen')), false)
  assert.equal(existsSync(first!), false)
  const nothing = await runPostern(['client', 'install-service', '--uninstall'], { home, env })
  assert.deepEqual([nothing.code, nothing.stderr], [0, 'postern: there is no service postern-listen\n'])
})

test('a connector whose line would not start is not installed', async () => {
  const cases: [string[], RegExp][] = [
    [['--name', 'db'], /nothing says where the private service is \(USAGE_INVALID\)/],
    [
      ['--name', 'db', '--prot', '5432'],
      /unknown option '--prot' \(USAGE_INVALID\)\n {2}did you mean --port\?/,
    ],
    [['--name', 'db', '--port', '5432', '--type', 'http'], /there is no service type "http"/],
  ]
  for (const [words, message] of cases) {
    const args = ['connector', 'install-service', '--dry-run', '--', ...words]
    const { code, stderr, stdout } = await runPostern(args, { home })
    assert.deepEqual({ code, stdout }, { code: 2, stdout: '' })
    assert.match(stderr, message)
  }
})

test('a connector of a file is not installed with a bad entry, and is with a good one', async () => {
  const file = path.join(makeTempFolder('connector'), 'connector.yaml')
  const install = ['connector', 'install-service', '-f', file, '--dry-run']
  writeFileSync(file, 'services:\n- { name: db }\n')
  const bad = await runPostern(install, { home })
  assert.equal(bad.code, 2)
  assert.match(bad.stderr, /line 2: the entry has no target \(SERVICES_INVALID\)/)
  writeFileSync(file, 'services:\n- { name: db, target: "localhost:5432" }\n')
  const good = await runPostern(install, { home })
  assert.equal(good.code, 0, good.stderr)
  assert.ok(good.stdout.includes(` connect -f ${file} --batch\n`))
})

test('a connector does too', async () => {
  await using systemd = await startUserSystemd(home)
  const { env } = systemd
  const options = [
    '--name',
    'as a service',
    '--port',
    String(greeter.port),
    '--allowed-email-domains',
    'mycorp.com',
  ]
  const install = ['connector', 'install-service', '--unit', 'postern-greeter', '--', ...options]
  const installed = await runPostern(install, { home, env, timeoutMs: 120_000 })
  assert.equal(installed.code, 0, installed.stderr)
  const status = await systemd.shows('postern-greeter', 'StatusText', /is ready/)
  const host = status.split(' ')[0]!
  const answer = await until('the service answers', async () => {
    const { code, stdout } = await runPostern(['client', 'tls', '--host', host], { home })
    return code === 0 && stdout
  })
  assert.equal(answer, 'hello\n')
  const remove = ['connector', 'install-service', '--unit', 'postern-greeter', '--uninstall']
  assert.equal((await runPostern(remove, { home, env })).code, 0)
  assert.equal(existsSync(unitOf('postern-greeter')), false)
})

describe('whoever starts it as systemd does is told', () => {
  test('of listeners in a file: that they are there, are read again, and leave', async () => {
    await using manager = await startNotifySocket()
    const file = path.join(makeTempFolder('listeners'), 'listeners.yaml')
    writeListeners(file, ['first.sock'])
    const options = { home, env: manager.env }
    await using listeners = spawnPostern(['client', 'listen', '-f', file, '--batch'], options)
    await manager.hears(/^READY=1 STATUS=1 listener$/)
    writeListeners(file, ['first.sock', 'second.sock'])
    await manager.hears(/^READY=1 STATUS=2 listeners$/)
    listeners.signal('SIGTERM')
    await manager.hears(/^STOPPING=1 /)
    await listeners.ended
    const [ready, reloading, again, ...last] = manager.said()
    assert.match(reloading!, /^RELOADING=1 MONOTONIC_USEC=[1-9]\d*$/)
    assert.deepEqual(
      [ready, again, ...last],
      ['READY=1 STATUS=1 listener', 'READY=1 STATUS=2 listeners', 'STOPPING=1 STATUS=leaving'],
    )
  })

  test('of one listener and of a connector: that it is there, and leaves', async () => {
    const target = ['--port', String(greeter.port), '--allowed-email-domains', 'mycorp.com']
    const commands = [
      ['client', 'listen', '--host', service.host, '--local', '0', '--batch'],
      ['connect', '--name', 'told', ...target, '--batch'],
    ]
    for (const command of commands) {
      await using manager = await startNotifySocket()
      await using program = spawnPostern(command, { home, env: manager.env })
      await manager.hears(/^READY=1 STATUS=\S+ is (ready|at 127\.0\.0\.1:\d+)$/)
      program.signal('SIGTERM')
      await manager.hears(/^STOPPING=1 STATUS=leaving$/)
      await program.ended
      assert.equal(manager.said().length, 2, manager.said().join('\n'))
    }
  })

  test('nothing where nobody is, and goes on', async () => {
    const nowhere = { NOTIFY_SOCKET: path.join(makeTempFolder('notify'), 'gone') }
    const command = ['client', 'listen', '--host', service.host, '--local', '0', '--batch']
    await using program = spawnPostern(command, { home, env: nowhere })
    await program.matches(/cannot tell the service manager/)
    assert.ok(program.isRunning)
  })
})

describe('nothing is left behind', () => {
  test('without a systemd, by a dry run, and where something else has the name', async () => {
    const list = path.join(makeTempFolder('listeners'), 'listeners.yaml')
    writeListeners(list, ['x.sock'])
    const env = { XDG_RUNTIME_DIR: makeTempFolder('run') }
    const install = ['client', 'install-service', '-f', list]
    const alone = await runPostern(install, { home, env })
    assert.equal(alone.code, 1)
    assert.match(alone.stderr, /systemctl --user daemon-reload fails: .*\(SERVICE_SETUP_FAILED\)/)
    assert.equal(existsSync(unitOf('postern-listen')), false)

    const proxy = ['--proxy', 'http://proxy.mycorp.com:3128', '--proxy-credentials-file', '/etc/proxy']
    const inside = ['--transport', 'ws', '--transport-ca', '/etc/front.pem']
    const dry = await runPostern([...install, ...proxy, ...inside, '--dry-run'], { home, env })
    assert.equal(dry.code, 0, dry.stderr)
    assert.ok(dry.stdout.startsWith(`# ${unitOf('postern-listen')}\n`))
    assert.match(
      dry.stdout,
      /^ExecStart=\S+ \S+ client listen -f .* --batch --proxy http:\/\/proxy.* \/etc\/proxy --transport ws --transport-ca \/etc\/front\.pem$/m,
    )
    assert.match(dry.stdout, /\nsystemctl --user restart postern-listen\.service\n$/)
    assert.equal(existsSync(unitOf('postern-listen')), false)

    mkdirSync(path.dirname(unitOf('mine')), { recursive: true })
    writeFileSync(unitOf('mine'), '[Service]\n')
    for (const more of [[], ['--uninstall']]) {
      const { code, stderr } = await runPostern([...install, '--unit', 'mine', ...more], { home, env })
      assert.equal(code, 1)
      assert.match(stderr, /is not a unit that postern made, and stays as it is \(SERVICE_SETUP_FAILED\)/)
    }
    assert.equal(readFileSync(unitOf('mine'), 'utf8'), '[Service]\n')
  })

  test('by what would not start', async () => {
    const list = path.join(makeTempFolder('listeners'), 'listeners.yaml')
    writeListeners(list, ['x.sock'], 'db.elsewhere.example')
    const cases: [string[], RegExp][] = [
      [['client', 'install-service', '-f', list], /line 2: .*\(EDGE_UNKNOWN\)/],
      [['client', 'install-service'], /nothing says what the service listens for/],
      [['connector', 'install-service'], /nothing says what the connector exposes/],
      [['client', 'install-service', '-f', list, '--unit', '../x'], /is not the name of a service/],
      [['client', 'install-service', '-f', list, '--print', 'sysv'], /there is no service system "sysv"/],
    ]
    for (const [args, message] of cases) {
      const { code, stderr } = await runPostern(args, { home })
      assert.notEqual(code, 0)
      assert.match(stderr, message)
    }
    assert.equal(existsSync(unitOf('postern-listen')), false)
  })
})

describe('--print', () => {
  const print = async (system: string, words: readonly string[]) => {
    const args = ['connector', 'install-service', '--print', system, '--', ...words]
    const { code, stdout, stderr } = await runPostern(args, { home })
    assert.equal(code, 0, stderr)
    return stdout
  }
  const words = ['--name', `it's <50%> "$HOME" & more`, '--port', '5432']

  test('systemd: its own opinion of the unit', async () => {
    const file = path.join(makeTempFolder('unit'), 'postern-connect.service')
    writeFileSync(file, await print('systemd', words))
    assert.equal(verifyUnit(file), '')
  })

  test('launchd: a property list that has each word as it was given', async () => {
    const script = 'import plistlib, json, sys; print(json.dumps(plistlib.loads(sys.stdin.buffer.read())))'
    const input = await print('launchd', words)
    const { stdout, stderr, status } = spawnSync('python3', ['-c', script], { input, encoding: 'utf8' })
    assert.equal(status, 0, stderr)
    const list = JSON.parse(stdout)
    assert.deepEqual(list.ProgramArguments.slice(2), ['connect', ...words, '--batch'])
    assert.equal(list.WorkingDirectory, process.cwd())
    assert.deepEqual(list.EnvironmentVariables, { POSTERN_HOME: home })
    assert.equal(list.StandardErrorPath, path.join(home, 'postern-connect.log'))
  })

  test('Windows: a task at sign-in', async () => {
    const text = await print('windows', words)
    assert.match(text, /Register-ScheduledTask -TaskName 'postern-connect'/)
    assert.match(text, /-AllowStartIfOnBatteries -DontStopIfGoingOnBatteries/)
    assert.match(
      text,
      /connect --name "it''s <50%> \\"\$HOME\\" & more" --port 5432 --batch' -WorkingDirectory '/,
    )
  })
})
