import assert from 'node:assert/strict'
import { chmodSync, cpSync, globSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { after, before, describe, test } from 'node:test'
import { findFreePort } from '../demo/free-port.ts'
import { Program } from '../demo/program.ts'
import { type ConnectedService, connectService } from './support/connect-service.ts'
import { makePerson } from './support/dev-browser.ts'
import { type EdgeProcess, startEdge } from './support/edge-process.ts'
import { POSTERN, posternEnv, runPostern } from './support/postern.ts'
import { startEcho, type TcpService } from './support/tcp-services.ts'
import { makeTempFolder } from './support/temp-folder.ts'

/** `postern doctor`: each thing that can be wrong is broken for real, found, and comes with its next step. */

let edge: EdgeProcess
let echo: TcpService
let service: ConnectedService
let ann: string

before(async () => {
  edge = await startEdge()
  echo = await startEcho()
  ann = await makePerson(edge, 'ann@mycorp.com')
  service = await connectService({ home: ann, port: echo.port })
})
after(async () => {
  await service?.[Symbol.asyncDispose]()
  await echo?.[Symbol.asyncDispose]()
  await edge?.[Symbol.asyncDispose]()
})

interface Check {
  name: string
  state: string
  message: string
  fix?: string
}

/** Runs `postern doctor --json` and gives its checks by name. */
async function examine(home: string, args: readonly string[] = [], env: NodeJS.ProcessEnv = {}) {
  const { code, stdout, stderr } = await runPostern(['doctor', '--json', ...args], { home, env })
  assert.match(stdout, /^\{/, stderr)
  const checks = JSON.parse(stdout).checks as Check[]
  const failed = checks.filter(({ state }) => state === 'fail').map(({ name }) => name)
  assert.equal(code, failed.length === 0 ? 0 : 1, stderr)
  for (const { state, fix, name } of checks) assert.equal(fix !== undefined, state !== 'ok', name)
  return { failed, checks: new Map(checks.map((check) => [check.name, check])) }
}

/** A copy of somebody's state, to break it. */
function copyHome(home: string): string {
  const copy = makeTempFolder('home')
  cpSync(home, copy, { recursive: true })
  return copy
}

function changeEdgeFile(home: string, change: (facts: Record<string, unknown>) => void): void {
  const [file] = globSync(path.join(home, 'edges/*/edge.json'))
  const facts = JSON.parse(readFileSync(file!, 'utf8'))
  change(facts)
  writeFileSync(file!, JSON.stringify(facts))
}

/** A `PATH` whose ssh reads this configuration: ssh itself looks where the user database says, not at $HOME. */
function pathWithSshConfig(text: string): NodeJS.ProcessEnv {
  const folder = makeTempFolder('bin')
  writeFileSync(path.join(folder, 'config'), text)
  writeFileSync(path.join(folder, 'ssh'), `#!/bin/sh\nPATH=\${PATH#*:} exec ssh -F ${folder}/config "$@"\n`)
  chmodSync(path.join(folder, 'ssh'), 0o755)
  return { PATH: `${folder}:${process.env.PATH}` }
}

const GOOD_SSH_CONFIG = 'Host *.edge.localhost\n  ProxyCommand postern client tls --host %h\n'

describe('postern doctor', () => {
  test('when all is well: every line ok, exit 0, and the flow was a real one', async () => {
    const flows = echo.connections.length
    const found = await examine(ann, ['--host', service.host], pathWithSshConfig(GOOD_SSH_CONFIG))
    const names = [
      'proxy',
      'dns',
      'edge',
      'version',
      'ca',
      'clock',
      'session',
      'certificate',
      'flow',
      'ssh config',
    ]
    assert.deepEqual([...found.checks.keys()], names)
    for (const { name, state, message } of found.checks.values())
      assert.equal(state, 'ok', `${name}: ${message}`)
    assert.match(found.checks.get('session')!.message, /^ann@mycorp\.com, for 1[12] h/)
    assert.equal(echo.connections.length, flows + 1)
    assert.equal(await echo.connections[flows]!.ended, 'end')
  })

  test('for people: a line each, the next step below, and what else can be tried', async () => {
    const well = await runPostern(['doctor'], { home: ann, env: pathWithSshConfig(GOOD_SSH_CONFIG) })
    assert.equal(well.code, 0, well.stderr)
    assert.match(well.stdout, /^ok {4}session {6}ann@mycorp\.com/m)
    assert.match(well.stderr, /--host to try a certificate and a flow/)
    const ill = await runPostern(['doctor'], { home: makeTempFolder('home') })
    assert.equal(ill.code, 1)
    assert.match(ill.stdout, /^fail {2}edge .+\n +→ sign in to the edge once: postern login/m)
    assert.match(ill.stderr, /not everything is well: edge \(CHECK_FAILED\)/)
  })

  test('nobody has signed in to the edge of this host', async () => {
    const { failed, checks } = await examine(ann, ['--host', 'db.other.example'])
    assert.deepEqual(failed, ['edge'])
    assert.match(checks.get('edge')!.fix!, /postern login --edge https:\/\/other\.example/)
  })

  test('the edge is down', async () => {
    const home = copyHome(ann)
    const port = await findFreePort()
    changeEdgeFile(home, (facts) => {
      facts.origin = `https://edge.localhost:${port}`
    })
    const { failed, checks } = await examine(home)
    assert.deepEqual(failed, ['edge'])
    assert.match(checks.get('edge')!.message, /nothing listens there/)
    assert.ok(!checks.has('session'), 'one cause is told once')
  })

  test('the name of the edge is unknown', async () => {
    const home = copyHome(ann)
    changeEdgeFile(home, (facts) =>
      Object.assign(facts, { origin: 'https://e.invalid', domain: 'e.invalid' }),
    )
    const { failed, checks } = await examine(home)
    assert.deepEqual(failed, ['dns'])
    assert.match(checks.get('dns')!.fix!, /name servers/)
  })

  test('the edge is not the one that was trusted', async () => {
    await using other = await startEdge()
    const home = copyHome(ann)
    changeEdgeFile(home, (facts) => {
      facts.caPem = readFileSync(other.caFile, 'utf8')
    })
    const { failed, checks } = await examine(home)
    assert.deepEqual(failed, ['ca'])
    assert.match(checks.get('ca')!.fix!, new RegExp(`postern login --edge ${edge.origin} --ca-fingerprint`))
  })

  test('the clock is off: a warning while it works, a failure when it does not', async () => {
    const run = async (offset: string) => {
      const args = ['-f', offset, process.execPath, POSTERN, 'doctor', '--json']
      const home = copyHome(ann)
      const { stdout, stderr } = await new Program('faketime', args, {
        env: { ...posternEnv({ home }), DONT_FAKE_MONOTONIC: '1' },
        stdin: '',
      }).ended
      const checks = JSON.parse(stdout).checks as Check[]
      return checks.find(({ name }) => name === 'clock') ?? assert.fail(stdout + stderr)
    }
    const ahead = await run('+10m')
    assert.equal(ahead.state, 'warn')
    assert.match(ahead.message, /clock is (10|9) min.* ahead of the edge's/)
    assert.match(ahead.fix!, /timedatectl/)
    const wrong = await run('-3y')
    assert.equal(wrong.state, 'fail')
    assert.match(wrong.fix!, /timedatectl/)
  })

  test('a proxy variable, an exception from it, and verification that was switched off', async () => {
    const nobody = await findFreePort()
    const proxied = await examine(ann, [], { POSTERN_PROXY: `http://127.0.0.1:${nobody}` })
    assert.match(proxied.checks.get('proxy')!.message, /the HTTP proxy 127\.0\.0\.1:\d+ leads to the edge/)
    assert.deepEqual(proxied.failed, ['edge'])
    assert.match(proxied.checks.get('edge')!.message, /cannot reach the HTTP proxy .+: nothing listens there/)
    const wrong = await examine(ann, [], { POSTERN_PROXY: 'ftp://proxy.example' })
    assert.deepEqual(wrong.failed, ['proxy'])
    const excepted = { https_proxy: 'http://proxy.example:3128', NO_PROXY: 'example.com, .localhost' }
    assert.match((await examine(ann, [], excepted)).checks.get('proxy')!.message, /without a proxy/)
    const unsafe = await examine(ann, [], { NODE_TLS_REJECT_UNAUTHORIZED: '0' })
    assert.match(unsafe.checks.get('proxy')!.message, /verifies certificates all the same/)
  })

  test('there is no session: the line to paste, and no browser', async () => {
    const home = await makePerson(edge, 'away@mycorp.com')
    assert.equal((await runPostern(['logout'], { home })).code, 0)
    const { failed, checks } = await examine(home, ['--host', service.host])
    assert.deepEqual(failed, ['session'])
    assert.equal(checks.get('session')!.fix, `sign in: postern login --edge ${edge.origin}`)
    assert.ok(!checks.has('certificate'))
  })

  test('the service does not admit the person', async () => {
    const stranger = await makePerson(edge, 'stranger@elsewhere.example')
    const { failed, checks } = await examine(stranger, ['--host', service.host])
    assert.deepEqual(failed, ['certificate'])
    assert.match(checks.get('certificate')!.fix!, /owner of the service/)
  })

  test('the service is offline, or its port is closed', async () => {
    const port = await findFreePort()
    const closed = await connectService({ home: ann, name: 'closed', port, args: ['--host', '127.0.0.1'] })
    const refused = await examine(ann, ['--host', closed.host])
    assert.deepEqual(refused.failed, ['flow'])
    assert.match(refused.checks.get('flow')!.fix!, /service is running/)
    await closed.stop()
    const offline = await examine(ann, ['--host', closed.host])
    assert.deepEqual(offline.failed, ['flow'])
    assert.match(offline.checks.get('flow')!.fix!, /start its connector/)
  })

  test('ssh does not lead to postern, passes the wrong port, or is not there', async () => {
    const state = async (env: NodeJS.ProcessEnv) => {
      const { failed, checks } = await examine(ann, ['--host', service.host], env)
      assert.deepEqual(failed, [])
      return checks.get('ssh config')!
    }
    const direct = await state(pathWithSshConfig('Host other.example\n  ProxyCommand postern client tls\n'))
    assert.match(direct.message, /does not use postern, it connects to it directly/)
    assert.match(direct.fix!, /Host \*\.edge\.localhost .*ProxyCommand postern client tls --host %h/)
    const wrongPort = await state(
      pathWithSshConfig(GOOD_SSH_CONFIG.replace('--host %h', '--host %h --port %p')),
    )
    assert.match(wrongPort.message, /%p/)
    const broken = await state(pathWithSshConfig('Hoost x\n'))
    assert.match(
      broken.message,
      /ssh refuses its configuration: .*Hoost|ssh refuses its configuration: .*bad/,
    )
    const empty = path.join(makeTempFolder('bin'), 'empty')
    mkdirSync(empty)
    assert.match((await state({ PATH: empty })).message, /ssh cannot be started/)
  })
})
