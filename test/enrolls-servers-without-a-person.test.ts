import assert from 'node:assert/strict'
import {
  chmodSync,
  cpSync,
  existsSync,
  globSync,
  mkdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import path from 'node:path'
import { after, before, describe, test } from 'node:test'
import type { Program } from '../demo/program.ts'
import { Canaries } from './support/canaries.ts'
import {
  type ConnectedService,
  type ConnectOptions,
  connectService,
  spawnConnect,
} from './support/connect-service.ts'
import { makePerson } from './support/dev-browser.ts'
import { type EdgeProcess, startEdge } from './support/edge-process.ts'
import { runPostern } from './support/postern.ts'
import { startEcho, type TcpService } from './support/tcp-services.ts'
import { makeTempFolder } from './support/temp-folder.ts'
import { until, within } from './support/until.ts'

/** `postern service enroll-token` and `postern connect --enroll-token-file`: a server becomes a connector though nobody
 *  signs in on it. */

let edge: EdgeProcess
let echo: TcpService
let admin: string
let ann: string
let bob: string
const canaries = new Canaries()
const logs: string[] = []

before(async () => {
  edge = await startEdge()
  echo = await startEcho()
  admin = await makePerson(edge, 'operator@mycorp.com')
  ann = await makePerson(edge, 'ann@mycorp.com')
  bob = await makePerson(edge, 'bob@mycorp.com')
})
after(async () => {
  await echo?.[Symbol.asyncDispose]()
  await edge?.[Symbol.asyncDispose]()
})

/** A service of ann's without a connector. */
async function makeService(name: string, home = ann): Promise<string> {
  await using claimed = await connectService({ home, port: echo.port, name })
  await claimed.stop()
  return claimed.label
}

const tokenCommand = (label: string, ...args: string[]) => ['service', 'enroll-token', label, ...args]

async function makeToken(label: string, ...args: string[]): Promise<string> {
  const { code, stdout, stderr } = await runPostern(tokenCommand(label, ...args), { home: ann })
  assert.equal(code, 0, stderr)
  const token = stdout.trim()
  canaries.add('enroll token', token)
  logs.push(stderr)
  return token
}

/** A machine that nobody has signed in on, with a token's file. */
function makeServer(token: string): { home: string; tokenFile: string } {
  const home = makeTempFolder('server')
  const tokenFile = path.join(home, 'token')
  writeFileSync(tokenFile, `${token}\n`, { mode: 0o600 })
  return { home, tokenFile }
}

interface Server {
  home: string
  tokenFile: string
}

const optionsOf = ({ home, tokenFile }: Server, name: string, args?: string[]): ConnectOptions => ({
  home,
  port: echo.port,
  name,
  allowedEmailDomains: [],
  args: [
    ...(args ?? ['--edge', edge.origin, '--ca-file', edge.caFile]),
    ...['--batch', '--enroll-token-file', tokenFile],
  ],
})

async function start(server: Server, name: string, args?: string[]): Promise<ConnectedService> {
  const connected = await connectService(optionsOf(server, name, args))
  void connected.program.ended.then((ended) => logs.push(ended.stderr + ended.stdout))
  return connected
}

async function startInVain(server: Server, name: string, args?: string[]) {
  const program: Program = spawnConnect(optionsOf(server, name, args))
  const ended = await within('postern connect gives up', program.ended)
  logs.push(ended.stderr + ended.stdout)
  return ended
}

const reach = (host: string) => runPostern(['client', 'tls', '--host', host], { home: bob, stdin: 'hello' })

async function audit(type: string): Promise<Record<string, unknown>[]> {
  const { code, stdout, stderr } = await runPostern(['audit', 'list', '--json', '--type', type], {
    home: admin,
  })
  assert.equal(code, 0, stderr)
  return stdout
    .split('\n')
    .filter(Boolean)
    .flatMap((line) => {
      const value = JSON.parse(line)
      return value.records ?? [value]
    })
}

/** Every file of a state folder as text. */
const stateOf = (home: string) =>
  globSync(path.join(home, '{edges/**/*,*}'), { withFileTypes: true })
    .filter((entry) => entry.isFile() && entry.name !== 'token')
    .map((entry) => readFileSync(path.join(entry.parentPath, entry.name), 'utf8'))
    .join('\n')

describe('a server without a person', () => {
  test('becomes a connector with a token, and then lives on its certificate', async () => {
    const label = await makeService('first')
    const server = makeServer(await makeToken(label))
    const first = await start(server, 'first')
    assert.equal(first.label, label)
    assert.deepEqual(
      first.events().map(({ event }) => event),
      ['enrolled', 'ready'],
    )
    const reached = await reach(first.host)
    assert.equal(reached.stdout, 'hello', reached.stderr)
    assert.equal(readFileSync(server.tokenFile, 'utf8').startsWith('postern_enroll_'), true, 'left as it was')
    assert.equal(existsSync(path.join(server.home, 'edges')), true)
    canaries.assertNoneIn('the state folder', stateOf(server.home))
    assert.equal(await first.stop(), 0)

    const again = await start(server, 'first')
    assert.equal(again.host, first.host)
    assert.ok(!again.events().some(({ event }) => event === 'enrolled'))
    assert.equal(await again.stop(), 0)

    rmSync(server.tokenFile)
    await using without = await start(server, 'first', [])
    assert.equal((await reach(without.host)).stdout, 'hello')

    const used = (await audit('enroll_token.used')).find((event) => event.label === label)
    const created = (await audit('enroll_token.created')).find((event) => event.label === label)
    assert.deepEqual([used?.label, used?.email, used?.tokenId], [label, 'ann@mycorp.com', created?.tokenId])
    assert.equal(created?.email, 'ann@mycorp.com')
  })

  test('trusts a private CA by its fingerprint, and no edge without', async () => {
    const label = await makeService('pinned')
    const server = makeServer(await makeToken(label))
    const distrusted = await startInVain(server, 'pinned', ['--edge', edge.origin])
    assert.equal(distrusted.code, 6, distrusted.stderr)
    assert.match(distrusted.stderr, /--ca-fingerprint.*/)
    const wrong = ['--edge', edge.origin, '--ca-fingerprint', `sha256:${'ab'.repeat(32)}`]
    assert.match((await startInVain(server, 'pinned', wrong)).stderr, /EDGE_UNTRUSTED/)
    const { stderr } = await runPostern(tokenCommand(label), { home: ann })
    const [, fingerprint = ''] = /--ca-fingerprint (sha256:[0-9a-f]{64})/.exec(stderr) ?? []
    await using pinned = await start(server, 'pinned', [
      '--edge',
      edge.origin,
      '--ca-fingerprint',
      fingerprint,
    ])
    assert.equal(pinned.label, label)
  })

  test('has to say which edge, and gets no name that the token is not for', async () => {
    const server = makeServer(await makeToken(await makeService('named')))
    const nowhere = await startInVain(server, 'named', [])
    assert.equal(nowhere.code, 2, nowhere.stderr)
    assert.match(nowhere.stderr, /--edge https:/)
    const other = await startInVain(server, 'another name')
    assert.equal(other.code, 5)
    assert.match(other.stderr, /is for another service.*ENROLL_TOKEN_INVALID/)
    await using right = await start(server, 'named')
    assert.ok(right.host)
  })

  test('is refused with a token that others can read, and the token is still good', async () => {
    const label = await makeService('open')
    const server = makeServer(await makeToken(label))
    chmodSync(server.tokenFile, 0o644)
    const refused = await startInVain(server, 'open')
    assert.equal(refused.code, 2)
    assert.match(refused.stderr, /can be read by other users/)
    const refusals = await audit('enroll_token.refused')
    assert.ok(!refusals.some((event) => event.label === label), 'the edge has not even been asked')
    chmodSync(server.tokenFile, 0o600)
    await using right = await start(server, 'open')
    assert.ok(right.host)
  })

  test('of two machines with one token exactly one wins; the other is told and recorded', async () => {
    const label = await makeService('raced')
    const token = await makeToken(label)
    const servers = [makeServer(token), makeServer(token)]
    const programs = servers.map((server) => spawnConnect(optionsOf(server, 'raced')))
    const outcomes = await Promise.all(
      programs.map((program) =>
        program.output(() => {
          if (program.stdout.includes('"event":"ready"')) return 'ready'
          return program.stderr.includes('ENROLL_TOKEN_INVALID') ? 'refused' : undefined
        }, 60_000),
      ),
    )
    assert.deepEqual([...outcomes].sort(), ['ready', 'refused'])
    const loser = await programs[outcomes.indexOf('refused')]!.ended
    assert.equal(loser.code, 5)
    assert.match(loser.stderr, /was used before/)
    await programs[outcomes.indexOf('ready')]!.stop('SIGTERM')
    const refusals = await audit('enroll_token.refused')
    assert.deepEqual(
      refusals.filter((event) => event.label === label).map(({ code, email }) => [code, email]),
      [['ENROLL_TOKEN_INVALID', 'ann@mycorp.com']],
    )
  })

  test('asks again with the same key when its certificate could not be kept; a copy of its token cannot', async () => {
    const server = makeServer(await makeToken(await makeService('retried')))
    const folder = path.join(server.home, 'edges', `edge.localhost_${edge.port}`)
    mkdirSync(folder, { recursive: true })
    writeFileSync(path.join(folder, 'connectors'), 'in the way')
    const failed = await startInVain(server, 'retried')
    assert.equal(failed.code, 1, failed.stderr)
    assert.match(failed.stderr, /STATE_INVALID/)
    const copy = makeTempFolder('copy')
    cpSync(server.tokenFile, path.join(copy, 'token'))
    const copied = await startInVain({ home: copy, tokenFile: path.join(copy, 'token') }, 'retried')
    assert.match(copied.stderr, /ENROLL_TOKEN_INVALID/)
    rmSync(path.join(folder, 'connectors'))
    await using retried = await start(server, 'retried')
    assert.equal((await reach(retried.host)).stdout, 'hello')
    assert.deepEqual(globSync(path.join(folder, 'enrolling', '*.json')), [], 'the key lies in one place only')
  })

  test('its service deleted, or its token cancelled: refused', async () => {
    const label = await makeService('gone')
    const cancelled = makeServer(await makeToken(label))
    const shown = await runPostern(['service', 'show', label], { home: ann })
    assert.match(shown.stdout, /tokens +1 /)
    const { stderr } = await runPostern(tokenCommand(label, '--cancel'), { home: ann })
    assert.match(stderr, /cancelled 1 enroll token;/)
    const orphan = makeServer(await makeToken(label))
    assert.equal((await runPostern(['service', 'delete', label], { home: ann })).code, 0)
    for (const server of [cancelled, orphan]) {
      const refused = await startInVain(server, 'gone')
      assert.equal(refused.code, 5)
      assert.match(refused.stderr, /ENROLL_TOKEN_INVALID/)
    }
  })

  test('its owner no operator any more: refused, and again good when they are one', async () => {
    await using strict = await startEdge({ keepsPort: true })
    const { port, dataDir } = strict
    const home = await makePerson(strict, 'carl@mycorp.com')
    const carls = await connectService({ home, port: echo.port, name: 'carls' })
    await carls.stop()
    const made = await runPostern(tokenCommand(carls.label), { home })
    assert.equal(made.code, 0, made.stderr)
    const server = makeServer(made.stdout.trim())
    const args = ['--edge', strict.origin, '--ca-file', strict.caFile]
    await strict.stop()
    {
      const config = { operators: { email_addresses: ['ann@mycorp.com'] } }
      await using without = await startEdge({ port, dataDir, config })
      const refused = await startInVain(server, 'carls', args)
      assert.match(refused.stderr, /no operator any more.*ENROLL_TOKEN_INVALID/)
      await without.stop()
    }
    await using _again = await startEdge({ port, dataDir })
    await using enrolled = await start(server, 'carls', args)
    assert.equal(enrolled.label, carls.label)
  })
})

describe('postern service enroll-token', () => {
  let label: string
  before(async () => {
    label = await makeService('tokens')
  })

  test('prints the token alone on stdout, and what to do with it on stderr', async () => {
    const { stdout, stderr } = await runPostern(tokenCommand(label), { home: ann })
    assert.match(stdout, /^postern_enroll_[\w-]{43}\n$/)
    assert.ok(!stderr.includes(stdout.trim()))
    assert.match(stderr, /mode 600/)
    assert.match(
      stderr,
      new RegExp(`postern connect --name 'tokens' --port PORT --edge ${edge.origin} --ca-fingerprint`),
    )
  })

  test('--out writes it into a new file that only its owner can read', async () => {
    const file = path.join(makeTempFolder('out'), 'token')
    const { code, stdout, stderr } = await runPostern(tokenCommand(label, '--out', file), { home: ann })
    assert.deepEqual([code, stdout], [0, ''], stderr)
    assert.equal(statSync(file).mode & 0o777, 0o600)
    const token = readFileSync(file, 'utf8')
    assert.match(token, /^postern_enroll_[\w-]{43}\n$/)
    const again = await runPostern(tokenCommand(label, '--out', file), { home: ann })
    assert.equal(again.code, 2)
    assert.match(again.stderr, /it is there already/)
    assert.equal(readFileSync(file, 'utf8'), token)
    const json = await runPostern(tokenCommand(label, '--out', `${file}2`, '--json'), { home: ann })
    assert.equal(JSON.parse(json.stdout).token, undefined)
    assert.equal(JSON.parse(json.stdout).file, `${file}2`)
  })

  test('leaves no file behind when the edge makes none', async () => {
    const file = path.join(makeTempFolder('out'), 'token')
    const refused = await runPostern(tokenCommand('no-such-service', '--out', file), { home: ann })
    assert.equal(refused.code, 1)
    assert.match(refused.stderr, /SERVICE_UNKNOWN/)
    assert.equal(existsSync(file), false)
  })

  test('--ttl is bounded by the edge; --json says until when', async () => {
    const { stdout } = await runPostern(tokenCommand(label, '--ttl', '1h', '--json'), { home: ann })
    const made = JSON.parse(stdout)
    assert.match(made.token, /^postern_enroll_/)
    assert.ok(Math.abs(made.expiresAt - Date.now() - 3_600_000) < 600_000)
    for (const ttl of ['8d', '1s', 'long']) {
      const refused = await runPostern(tokenCommand(label, '--ttl', ttl), { home: ann })
      assert.equal(refused.code, 2)
      assert.match(refused.stderr, /DURATION_INVALID/)
    }
  })

  test('is for the owner and administrators', async () => {
    const others = await runPostern(tokenCommand(label), { home: bob })
    assert.match(others.stderr, /SERVICE_UNKNOWN/)
    const byAdmin = await runPostern(tokenCommand(label), { home: admin })
    assert.equal(byAdmin.code, 0, byAdmin.stderr)
    const server = makeServer(byAdmin.stdout.trim())
    await using enrolled = await start(server, 'tokens')
    assert.equal(enrolled.label, label)
    await until('ann sees it', async () => {
      const { stdout } = await runPostern(['service', 'show', label, '--json'], { home: ann })
      return JSON.parse(stdout).service.connectors === 1
    })
  })

  test('what does not go together is refused: exit 2', async () => {
    for (const args of [
      tokenCommand(label, '--cancel', '--ttl', '1h'),
      ['connect', '--name', 'x', '--port', '1', '--ca-file', edge.caFile],
      ['connect', '--name', 'x', '--port', '1', '--enroll-token-file', 'x', '--replace-allow-list'],
    ]) {
      assert.equal((await runPostern(args, { home: ann })).code, 2, args.join(' '))
    }
  })
})

test('no token stands in any output, in the log of the edge, or in the audit log', async () => {
  canaries.assertNoneIn('the output of commands', logs.join('\n'))
  canaries.assertNoneIn('the log of the edge', edge.logs())
  const { stdout } = await runPostern(['audit', 'list', '--json'], { home: admin })
  canaries.assertNoneIn('the audit log', stdout)
  const store = globSync(path.join(edge.dataDir, 'edge.sqlite*'))
  for (const file of store) canaries.assertNoneIn(file, readFileSync(file, 'latin1'))
})
