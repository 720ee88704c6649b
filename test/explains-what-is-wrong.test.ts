import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, existsSync, globSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net'
import path from 'node:path'
import { after, before, describe, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { quoteForShell } from '../demo/dev-login.ts'
import { findFreePort } from '../demo/free-port.ts'
import { Program, type ProgramResult } from '../demo/program.ts'
import { connectService } from './support/connect-service.ts'
import { makeDevBrowser, makePerson } from './support/dev-browser.ts'
import { type EdgeProcess, startEdge } from './support/edge-process.ts'
import { POSTERN, posternEnv, runPostern, spawnPostern } from './support/postern.ts'
import { startEcho, type TcpService } from './support/tcp-services.ts'
import { makeTempFolder } from './support/temp-folder.ts'
import { within } from './support/until.ts'

/** What goes wrong is said with a code, an exit code that scripts can use, and the next step. */

let edge: EdgeProcess
let echo: TcpService
let operator: string

before(async () => {
  edge = await startEdge()
  echo = await startEcho()
  operator = await makePerson(edge, 'operator@mycorp.com')
})
after(async () => {
  await echo?.[Symbol.asyncDispose]()
  await edge?.[Symbol.asyncDispose]()
})

const reach = (host: string, home = operator) =>
  runPostern(['client', 'tls', '--host', host], { home, stdin: 'hello' })

/** Exit code, code, next step, and nothing on stdout. */
function assertExplained(result: ProgramResult, exitCode: number, code: string, nextStep: RegExp): void {
  assert.equal(result.code, exitCode, result.stderr)
  assert.match(result.stderr, new RegExp(`^postern: .+ \\(${code}\\)$`, 'm'))
  assert.match(result.stderr, nextStep)
  assert.equal(result.stdout, '')
  assert.doesNotMatch(result.stderr, /\n {4}at |node:internal/, 'a stack is not an explanation')
}

describe('the service', () => {
  test('refuses: SERVICE_REFUSED with its name and no private address', async () => {
    const port = await findFreePort()
    await using service = await connectService({
      home: operator,
      name: 'refuses',
      port,
      args: ['--host', '127.0.0.1'],
    })
    const result = await reach(service.host)
    assertExplained(result, 6, 'SERVICE_REFUSED', /check that the service is running/)
    assert.ok(result.stderr.includes(service.host))
    assert.ok(!result.stderr.includes('127.0.0.1') && !result.stderr.includes(String(port)), result.stderr)
  })

  test('cannot be found: SERVICE_UNREACHABLE, without the name that was looked for', async () => {
    const args = ['--host', 'db.secret-network.invalid']
    await using service = await connectService({ home: operator, name: 'lost', port: 5432, args })
    const result = await reach(service.host)
    assertExplained(result, 6, 'SERVICE_UNREACHABLE', /host and port that the connector was started with/)
    assert.doesNotMatch(result.stderr, /secret-network|5432/)
    assert.doesNotMatch(edge.logs(), /secret-network/)
  })

  test('has no connector: SERVICE_OFFLINE', async () => {
    const service = await connectService({ home: operator, name: 'offline', port: echo.port })
    await service.stop()
    assertExplained(await reach(service.host), 6, 'SERVICE_OFFLINE', /postern connect --name/)
  })
})

describe('the edge', () => {
  test('is not there: EDGE_UNREACHABLE', async () => {
    await using gone = await startEdge({ keepsPort: true })
    const home = await makePerson(gone, 'operator@mycorp.com')
    await using service = await connectService({ home, port: echo.port })
    assert.equal((await reach(service.host, home)).code, 0) // has a certificate from here on
    await gone.kill9()
    for (const args of [
      ['client', 'tls', '--host', service.host],
      ['whoami'],
      ['service', 'list'],
      ['login', '--edge', gone.origin, '--ca-file', gone.caFile],
    ]) {
      const started = performance.now()
      const result = await runPostern(args, { home })
      assertExplained(result, 6, 'EDGE_UNREACHABLE', /check the network/)
      assert.ok(result.stderr.includes(`edge.localhost:${gone.port}`), result.stderr)
      assert.ok(performance.now() - started < 20_000)
    }
  })

  test('accepts and stays silent: EDGE_UNREACHABLE within the connect timeout', async () => {
    await using gone = await startEdge({ keepsPort: true })
    const home = await makePerson(gone, 'operator@mycorp.com')
    const service = await connectService({ home, port: echo.port })
    assert.equal((await reach(service.host, home)).code, 0)
    await service.stop()
    await gone.stop()
    const silent = await listenSilently(gone.port)
    const started = performance.now()
    const results = await Promise.all([
      reach(service.host, home),
      runPostern(['whoami'], { home }),
      runPostern(['login', '--edge', gone.origin, '--ca-file', gone.caFile], { home }),
    ])
    assert.ok(performance.now() - started < 30_000, `${performance.now() - started} ms`)
    for (const result of results) assertExplained(result, 6, 'EDGE_UNREACHABLE', /check the network/)
    await silent.close()
  })

  test('shows a certificate that nobody vouches for: EDGE_UNTRUSTED, and there is no way around it', async () => {
    const home = makeTempFolder('home')
    const wrongCa = await startEdgeFor((other) => readFileSync(other.caFile, 'utf8'))
    const wrongFile = path.join(home, 'wrong-ca.pem')
    writeFileSync(wrongFile, wrongCa)
    for (const caArgs of [[], ['--ca-file', wrongFile]]) {
      const result = await runPostern(['login', '--edge', edge.origin, ...caArgs], {
        home,
        env: { NODE_TLS_REJECT_UNAUTHORIZED: '0' },
      })
      assertExplained(result, 6, 'EDGE_UNTRUSTED', /--ca-file/)
    }
    assert.ok(
      !existsSync(path.join(home, 'edges')) || globSync(path.join(home, 'edges/*/edge.json')).length === 0,
    )
  })

  test('is suddenly another one: EDGE_UNTRUSTED, and it gets no token and no byte', async () => {
    await using first = await startEdge({ keepsPort: true })
    const home = await makePerson(first, 'operator@mycorp.com')
    const service = await connectService({ home, port: echo.port })
    assert.equal((await reach(service.host, home)).code, 0)
    await service.stop()
    await first.stop()
    await using _other = await startEdge({ port: first.port })
    const env = { NODE_TLS_REJECT_UNAUTHORIZED: '0' }
    for (const args of [['client', 'tls', '--host', service.host], ['whoami'], ['logout']]) {
      const result = await runPostern(args, { home, stdin: 'hello', env })
      if (args[0] === 'logout') assert.match(result.stderr, /could not tell the edge/)
      else assertExplained(result, 6, 'EDGE_UNTRUSTED', /--ca-file/)
    }
  })

  test('is not known: exit 4 with the exact line, and no page opens', async () => {
    const home = makeTempFolder('home')
    const opened = path.join(home, 'opened')
    const browser = path.join(home, 'browser')
    writeFileSync(browser, `#!/bin/sh\necho "$@" > ${opened}\n`)
    chmodSync(browser, 0o755)
    for (const [args, line] of [
      [
        ['client', 'tls', '--host', 'db-1.edge.example.com'],
        'postern login --edge https://edge.example.com\n',
      ],
      [
        ['client', 'tls', '--host', 'db-1.edge.example.com', '--port', '8443', '--browser', browser],
        'postern login --edge https://edge.example.com:8443\n',
      ],
      [['service', 'show', 'db-1.edge.example.com'], 'postern login --edge https://edge.example.com\n'],
      [
        ['whoami', '--edge', 'https://e.example:1', '--browser', browser],
        'postern login --edge https://e.example:1\n',
      ],
      [
        ['connect', '--name', 'x', '--port', '1', '--allow-any-authenticated'],
        'postern login --edge https://',
      ],
    ] as const) {
      const result = await runPostern(args, { home, browser, pty: false })
      assertExplained(result, 4, 'EDGE_UNKNOWN', new RegExp(escapeRegExp(line)))
    }
    assert.ok(!existsSync(opened))
  })
})

describe('the command line', () => {
  const usage: [string, string[]][] = [
    ['no command', []],
    ['an unknown command', ['frobnicate']],
    ['an unknown option', ['whoami', '--frobnicate']],
    ['a missing option', ['login']],
    ['a missing option of client tls', ['client', 'tls']],
    ['a port that is none', ['client', 'tls', '--host', 'a-1.edge.localhost', '--port', 'ssh']],
    ['a port out of range', ['connect', '--name', 'x', '--port', '65536']],
    ['no port and no target', ['connect', '--name', 'x']],
    ['a target and a port', ['connect', '--name', 'x', '--target', 'db:5432', '--port', '5432']],
    ['an IPv6 target without brackets', ['connect', '--name', 'x', '--target', '::1:5432']],
    ['a socket that is no absolute path', ['connect', '--name', 'x', '--target', 'unix:db.sock']],
    ['ssh at a socket', ['connect', '--name', 'x', '--target', 'unix:/run/db.sock', '--ssh']],
    ['an edge without https', ['login', '--edge', 'http://edge.localhost']],
    ['an edge with a path', ['login', '--edge', 'https://edge.localhost/login']],
    [
      'a CA file that is not there',
      ['login', '--edge', 'https://edge.localhost', '--ca-file', '/nonexistent.pem'],
    ],
    ['an unknown type', ['connect', '--name', 'x', '--port', '1', '--type', 'http']],
    ['nothing to update', ['service', 'update', 'crimson-thunder-8434']],
    ['too many words', ['whoami', 'me']],
  ]
  for (const [what, args] of usage) {
    test(`${what}: exit 2`, async () => {
      const result = await runPostern(args, { home: operator })
      assert.equal(result.code, 2, result.stderr + result.stdout)
      assert.equal(result.stdout, '')
      if (args.length === 0) assert.match(result.stderr, /^Usage: postern /)
      else assertExplained(result, 2, 'USAGE_INVALID', /^ {2}\S/m)
    })
  }

  test('a CA file that is not there or is no CA: which file, and who has the right one', async () => {
    const none = path.join(makeTempFolder('ca'), 'none.pem')
    const other = path.join(makeTempFolder('ca'), 'other.pem')
    writeFileSync(other, 'hello')
    for (const [file, message] of [
      [none, `cannot read ${none}: there is no such file`],
      [path.dirname(none), `cannot read ${path.dirname(none)}: it is a folder`],
      [other, `${other} holds no certificate in PEM`],
    ] as const) {
      const result = await runPostern(['login', '--edge', edge.origin, '--ca-file', file], { home: operator })
      assertExplained(result, 2, 'USAGE_INVALID', /^ {2}ask whoever runs the edge for its CA/m)
      assert.ok(result.stderr.startsWith(`postern: ${message} (USAGE_INVALID)\n`), result.stderr)
    }
  })

  test('a type of record that there is not: all that there are', async () => {
    const result = await runPostern(['audit', 'list', '--type', 'nope'], { home: operator })
    assertExplained(result, 2, 'REQUEST_INVALID', /^ {2}the types are: .*certificate\.issued.*flow\.decided/m)
    const right = await runPostern(['audit', 'list', '--type', 'identity.locked'], { home: operator })
    assert.equal(right.code, 0, right.stderr)
    assert.match(right.stderr, /no such records/)
  })

  test('a host with two labels before the domain of a known edge: how one is written', async () => {
    for (const host of ['a.b.edge.localhost', 'edge.localhost']) {
      const result = await reach(host)
      assertExplained(result, 2, 'USAGE_INVALID', /one label before the domain, as in \S+\.edge\.localhost/)
      assert.doesNotMatch(result.stderr, /postern login/)
    }
  })

  test('a word mistyped: what was meant', async () => {
    const result = await runPostern(['servce', 'list'], { home: operator })
    assertExplained(result, 2, 'USAGE_INVALID', /^ {2}did you mean service\?$/m)
  })

  test('what ssh was led to type is no line to paste', async () => {
    const result = await runPostern(['client', 'tls', '--host', 'x.$(reboot)'], { home: operator })
    assertExplained(result, 2, 'USAGE_INVALID', /in full, as in/)
    assert.doesNotMatch(result.stderr, /postern login/)
  })

  test('every command has help with examples, on stdout, exit 0', async () => {
    const commands = [
      ...[['login'], ['logout'], ['whoami'], ['connect'], ['client', 'tls'], ['audit', 'list']],
      ...['list', 'show', 'update', 'delete'].map((command) => ['service', command]),
    ]
    for (const command of commands) {
      const { code, stdout } = await runPostern([...command, '--help'], { home: operator })
      assert.equal(code, 0)
      assert.match(stdout, /examples/i)
      assert.match(stdout, new RegExp(`postern ${command.join(' ')}`))
    }
  })

  test('Ctrl-C: exit 130', async () => {
    await using service = await connectService({ home: operator, name: 'interrupted', port: echo.port })
    await using client = spawnPostern(['client', 'tls', '--host', service.host], { home: operator })
    client.child.stdin.write('x')
    await client.matches(/x/)
    assert.equal((await client.stop('SIGINT')).code, 130)

    const home = makeTempFolder('home')
    const args = ['login', '--edge', edge.origin, '--ca-file', edge.caFile, '--no-browser']
    await using login = spawnPostern(args, { home })
    await login.matches(/\/oauth\/auth\?/)
    assert.equal((await login.stop('SIGINT')).code, 130)
    assert.equal((await runPostern(['whoami'], { home })).code, 4)
  })

  test('a state file that is damaged is named, and nothing is done with the rest', async () => {
    await using service = await connectService({ home: operator, name: 'damaged', port: echo.port })
    for (const name of [
      'edge.json',
      'session.json',
      `certificates/${service.label}.json`,
      'remembered.json',
    ]) {
      for (const damage of ['', '{"origin": ', '[]', '{}', 'null', '{"origin":1}']) {
        const home = await copyHome(operator, service.host)
        const [file] = globSync(path.join(home, 'edges', '*', name))
        writeFileSync(file!, damage)
        const args = name.startsWith('cert') ? ['client', 'tls', '--host', service.host] : ['whoami']
        const result = await runPostern(args, { home })
        assertExplained(result, 1, 'STATE_INVALID', /move the named file away/)
        assert.ok(result.stderr.includes(file!), result.stderr)
      }
    }
  })
})

describe('the clock', () => {
  /** Runs postern with its clock moved; the browser keeps the right one. */
  const runAt = (
    shift: string,
    args: readonly string[],
    { home, browser }: { home: string; browser?: string },
  ) =>
    within(
      `postern ${args.join(' ')} at ${shift}`,
      new Program('faketime', ['-f', shift, process.execPath, POSTERN, ...args], {
        stdin: 'hello',
        env: { ...posternEnv({ home, ...(browser ? { browser } : {}) }), DONT_FAKE_MONOTONIC: '1' },
      }).ended,
    )

  for (const [shift, side] of [
    ['-10m', 'behind'],
    ['+10m', 'ahead of'],
  ] as const) {
    test(`ten minutes ${side} the edge's: login says so, and everything works`, async () => {
      await using service = await connectService({ home: operator, name: `clock ${side}`, port: echo.port })
      const home = makeTempFolder('home')
      const login = ['login', '--edge', edge.origin, '--ca-file', edge.caFile]
      const signedIn = await runAt(shift, login, { home, browser: await makeBrowserOnTime(home) })
      assert.equal(signedIn.code, 0, signedIn.stderr)
      assert.match(
        signedIn.stderr,
        new RegExp(`this machine's clock is (9 min 5\\d s|10 min( \\d s)?) ${side} the edge's`),
      )
      assert.equal((await runAt(shift, ['whoami'], { home })).code, 0)
      for (let round = 0; round < 2; round++) {
        const reached = await runAt(shift, ['client', 'tls', '--host', service.host], { home })
        assert.equal(reached.stdout, 'hello', reached.stderr)
      }
    })

    test(`suddenly ten minutes ${side} the edge's, and set again: everything works`, async () => {
      await using service = await connectService({ home: operator, name: `jump ${side}`, port: echo.port })
      const home = await makePerson(edge, 'jumper@mycorp.com')
      const args = ['client', 'tls', '--host', service.host]
      for (const at of [shift, '+0s', shift]) {
        const whoami = await runAt(at, ['whoami'], { home })
        assert.equal(whoami.code, 0, whoami.stderr)
        const reached = await runAt(at, args, { home })
        assert.equal(reached.stdout, 'hello', reached.stderr)
      }
    })
  }

  test('a year behind: the sentence has both times', async () => {
    const result = await runAt('-365d', ['whoami'], { home: operator })
    assertExplained(result, 1, 'CLOCK_OFF', /set this machine's clock/)
    assert.match(
      result.stderr,
      /clock says \d{4}-\S+, but the certificate of edge\.localhost:\d+ begins 364 d 2\d h later/,
    )
  })

  test('a year ahead: the sentence has both times', async () => {
    const result = await runAt('+365d', ['whoami'], { home: operator })
    assertExplained(
      result,
      1,
      'CLOCK_OFF',
      /if this machine's clock is right, the edge needs a new certificate/,
    )
    assert.match(
      result.stderr,
      /clock says \d{4}-\S+, but the certificate of edge\.localhost:\d+ ended 3\d\d d.* earlier/,
    )
  })

  test('a clock that runs ahead past the end of the session does not cost the session', async () => {
    const home = await makePerson(edge, 'traveller@mycorp.com')
    const ahead = await runAt('+13h', ['whoami'], { home })
    assert.equal(ahead.code, 0, ahead.stderr)
    assertExplained(await runAt('+365d', ['whoami'], { home }), 1, 'CLOCK_OFF', /clock/)
    assert.equal((await runPostern(['whoami'], { home })).code, 0)
  })

  async function makeBrowserOnTime(home: string): Promise<string> {
    const browser = await makeDevBrowser(edge, home, 'late@mycorp.com')
    const file = path.join(home, 'browser-on-time')
    writeFileSync(file, `#!/bin/sh\nunset LD_PRELOAD FAKETIME\nexec ${quoteForShell(browser)} "$@"\n`)
    chmodSync(file, 0o755)
    return file
  }
})

describe('postern-edge', () => {
  const POSTERN_EDGE = fileURLToPath(new URL('../packages/edge/bin/postern-edge.js', import.meta.url))

  const runEdge = (...args: string[]) =>
    within('postern-edge ends', new Program(process.execPath, [POSTERN_EDGE, ...args], { stdin: '' }).ended)

  function writeConfig(text: string): string {
    const file = path.join(makeTempFolder('config'), 'edge.yaml')
    writeFileSync(file, text, { mode: 0o600 })
    return file
  }

  test('init: files for their owner only, and nothing is overwritten', async () => {
    const folder = makeTempFolder('init')
    const config = path.join(folder, 'edge.yaml')
    const args = ['init', '--config', config, '--domain', 'edge.localhost', '--dev-identity']
    const made = await runEdge(...args)
    assert.equal(made.code, 0, made.stderr)
    assert.match(made.stderr, /postern-edge serve --config/)
    const files = readdirSync(folder, { recursive: true, withFileTypes: true })
    assert.ok(files.length >= 7)
    for (const file of files) {
      const name = path.join(file.parentPath, file.name)
      const { mode } = statSync(name)
      if (file.isDirectory()) assert.equal(mode & 0o777, 0o700, name)
      // what people are given to trust is no secret
      else assert.ok([0o600, ...(name.endsWith('-ca.pem') ? [0o644] : [])].includes(mode & 0o777), name)
    }
    const contents = () =>
      files
        .filter((file) => file.isFile())
        .map((file) => readFileSync(path.join(file.parentPath, file.name), 'utf8'))
    const before = contents()
    const again = await runEdge(...args)
    assert.equal(again.code, 2)
    assert.match(again.stderr, /edge\.yaml is there already and is not overwritten/)
    const other = await runEdge(...args.with(2, path.join(folder, 'other.yaml')))
    assert.notEqual(other.code, 0, 'keys of another edge were taken over')
    assert.ok(!existsSync(path.join(folder, 'other.yaml')))
    assert.deepEqual(contents(), before)
    assert.equal((await runEdge('config', 'check', '--config', config)).code, 0)
  })

  test('config check: all problems at once, each with line, key, value and example', async () => {
    const file = writeConfig(`domain: edge_localhost
listen: "443"
identity:
  dev: true
operators:
  email_domains: ["*.mycorp.com"]
certificates:
  ttl: five minutes
limits:
  max_flows: -1
lissten: ":443"
`)
    const { code, stdout, stderr } = await runEdge('config', 'check', '--config', file)
    assert.equal(code, 2)
    assert.equal(stdout, '')
    assert.ok(stderr.includes(file))
    for (const [line, key, value] of [
      [1, 'domain', 'edge_localhost'],
      [2, 'listen', '443'],
      [6, 'operators.email_domains', '*.mycorp.com'],
      [8, 'certificates.ttl', 'five minutes'],
      [10, 'limits.max_flows', '-1'],
    ] as const) {
      const problem = stderr.split('\n').find((text) => text.includes(`line ${line}: ${key}`))
      assert.ok(problem?.includes(value), `line ${line}: ${key} in ${stderr}`)
      assert.match(problem ?? '', /\(example: .+\)/)
    }
    assert.match(stderr, /line 11: lissten.*did you mean listen/)
    const serve = await runEdge('serve', '--config', file)
    assert.equal(serve.code, 2)
    assert.ok(serve.stderr.includes('line 8: certificates.ttl'))
  })

  test('the development sign-in does not listen where others reach it', async () => {
    const config = (listen: string, more = '') =>
      writeConfig(`domain: edge.localhost\nlisten: "${listen}"\nidentity:\n  dev: true\n${more}`)
    for (const listen of ['0.0.0.0:0', ':0', '[::]:0', '192.0.2.1:8443']) {
      for (const command of [['serve'], ['config', 'check']]) {
        const { code, stderr } = await runEdge(...command, '--config', config(listen))
        assert.equal(code, 2, `${command} ${listen}`)
        assert.match(stderr, /line \d+: identity\.dev.*loopback/)
        assert.match(stderr, /unsafe_dev_identity/)
      }
    }
    const unsafe = await runEdge('config', 'check', '--config', config(':0', '  unsafe_dev_identity: true\n'))
    assert.equal(unsafe.code, 0, unsafe.stderr)
    assert.match(unsafe.stderr, /unsafe|anybody|everybody|whoever/i)
  })

  test('a port in use, a missing file, a secret that others can read: exit 2 and the reason', async () => {
    const taken = await listenSilently(0)
    const folder = makeTempFolder('taken')
    const config = path.join(folder, 'edge.yaml')
    const listen = `127.0.0.1:${taken.port}`
    await runEdge(
      'init',
      '--config',
      config,
      '--domain',
      'edge.localhost',
      '--dev-identity',
      '--listen',
      listen,
    )
    const inUse = await runEdge('serve', '--config', config)
    assert.equal(inUse.code, 2)
    assert.ok(inUse.stderr.includes(listen) && inUse.stderr.includes('EADDRINUSE'), inUse.stderr)
    await taken.close()

    const missing = await runEdge('serve', '--config', path.join(folder, 'no-such.yaml'))
    assert.equal(missing.code, 2)
    assert.match(missing.stderr, /no-such\.yaml cannot be read/)

    const secret = path.join(folder, 'secret')
    writeFileSync(secret, 'hunter2-hunter2', { mode: 0o644 })
    const open = writeConfig(
      `domain: edge.mycorp.com\nidentity: { issuer: "https://id.mycorp.com", client_id: x, client_secret_file: ${secret} }\n`,
    )
    const refused = await runEdge('config', 'check', '--config', open)
    assert.equal(refused.code, 2)
    assert.match(refused.stderr, /identity\.client_secret_file.*chmod 600/)
    assert.ok(!refused.stderr.includes('hunter2'))
  })
})

/** A copy of somebody's state that has a certificate for `host` too. */
async function copyHome(home: string, host: string): Promise<string> {
  assert.equal((await reach(host, home)).code, 0)
  const copy = makeTempFolder('home')
  assert.equal(spawnSync('cp', ['-a', `${home}/edges`, copy]).status, 0)
  return copy
}

async function startEdgeFor<T>(use: (other: EdgeProcess) => T): Promise<T> {
  await using other = await startEdge()
  return use(other)
}

/** Takes connections and never says a word. */
async function listenSilently(port: number): Promise<{ port: number; close(): Promise<void> }> {
  const sockets: Socket[] = []
  const server: Server = createServer((socket) => {
    sockets.push(socket.on('error', () => {}))
    socket.resume()
  }).listen(port, '127.0.0.1')
  await once(server, 'listening')
  return {
    port: (server.address() as AddressInfo).port,
    async close() {
      for (const socket of sockets) socket.destroy()
      server.close()
      await once(server, 'close')
    },
  }
}

function escapeRegExp(text: string): string {
  return text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')
}
