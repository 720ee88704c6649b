import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { chmodSync, existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { after, before, describe, test } from 'node:test'
import { quoteForShell } from '../demo/dev-login.ts'
import { Program } from '../demo/program.ts'
import { type ConnectedService, connectService } from './support/connect-service.ts'
import { logIn, makeDevBrowser, makePerson } from './support/dev-browser.ts'
import { type EdgeProcess, startEdge } from './support/edge-process.ts'
import { POSTERN, posternEnv, runPostern } from './support/postern.ts'
import { changeStoredSession, readStoredSession } from './support/stored-session.ts'
import { startEcho, type TcpService } from './support/tcp-services.ts'
import { makeTempFolder } from './support/temp-folder.ts'

/** Interactive means that stderr is a terminal or /dev/tty opens. `runPostern` starts every program detached, so
 *  that it has no terminal of any kind; with `pty` script(1) gives it one. */

/** Runs the next browser and leaves a mark: whether one was started at all. */
async function makeMarkingBrowser(edge: EdgeProcess, home: string, email: string) {
  const inner = await makeDevBrowser(edge, home, email)
  const mark = path.join(home, 'browser-was-started')
  const command = path.join(home, 'marking-browser')
  writeFileSync(command, `#!/bin/sh\ntouch ${quoteForShell(mark)}\nexec ${quoteForShell(inner)} "$@"\n`)
  chmodSync(command, 0o755)
  return { command, wasStarted: () => existsSync(mark) }
}

function edgeFile(home: string, name: string): string {
  const [folder = ''] = readdirSync(path.join(home, 'edges'))
  return path.join(home, 'edges', folder, name)
}

/** Somebody who knows the edge and has no session there. */
async function makeSignedOut(edge: EdgeProcess, email: string): Promise<string> {
  const home = await makePerson(edge, email)
  rmSync(edgeFile(home, 'session.json'))
  return home
}

/** On a quiet machine a bare Node starts in 30 to 50 ms: a second is more than this. */
const BARE_STARTS = 20

/** @returns milliseconds that an empty script takes now */
function measureBareStart(): number {
  const startedAt = performance.now()
  spawnSync(process.execPath, ['-e', '0'])
  return performance.now() - startedAt
}

let edge: EdgeProcess
let echo: TcpService
let service: ConnectedService

before(async () => {
  edge = await startEdge()
  echo = await startEcho()
  service = await connectService({ home: await makePerson(edge, 'owner@mycorp.com'), port: echo.port })
})
after(async () => {
  await service[Symbol.asyncDispose]()
  await echo[Symbol.asyncDispose]()
  await edge[Symbol.asyncDispose]()
})

describe('nobody can answer', () => {
  const cases: [string, string[], { pty?: boolean }][] = [
    ['without a terminal', [], {}],
    ['without a terminal, --batch over --interactive', ['--batch', '--interactive'], {}],
    ['at a terminal with --batch', ['--batch'], { pty: true }],
  ]
  for (const [what, more, options] of cases) {
    test(`${what}: exit 4 in under a second, no browser, and the exact command`, async () => {
      const home = await makeSignedOut(edge, 'dev@mycorp.com')
      const browser = await makeMarkingBrowser(edge, home, 'dev@mycorp.com')
      for (const args of [['client', 'tls', '--host', service.host], ['whoami'], ['service', 'list']]) {
        // the best of three, and no more than so many starts of a bare Node beside it: what else this machine does
        // is not measured
        let fastestMs = Number.POSITIVE_INFINITY
        let allowedMs = 1_000
        for (let at = 0; at < 3 && fastestMs >= allowedMs; at += 1) {
          allowedMs = Math.max(allowedMs, BARE_STARTS * measureBareStart())
          const startedAt = performance.now()
          const result = await runPostern([...args, ...more], { home, browser: browser.command, ...options })
          fastestMs = Math.min(fastestMs, performance.now() - startedAt)
          const said = result.stdout + result.stderr
          assert.equal(result.code, 4, said)
          assert.match(said, /SIGN_IN_REQUIRED/)
          assert.ok(said.includes(`postern login --edge ${edge.origin}`), said)
        }
        assert.ok(fastestMs < allowedMs, `${args.join(' ')}: ${fastestMs} of ${allowedMs} ms`)
      }
      assert.ok(!browser.wasStarted())
    })
  }

  test('a session that is over is no session: the same', async () => {
    const home = await makePerson(edge, 'dev@mycorp.com')
    const keep = readFileSync(edgeFile(home, 'session.json'))
    assert.equal((await runPostern(['logout'], { home })).code, 0)
    writeFileSync(edgeFile(home, 'session.json'), keep, { mode: 0o600 })
    const browser = await makeMarkingBrowser(edge, home, 'dev@mycorp.com')
    const result = await runPostern(['whoami'], { home, browser: browser.command })
    assert.equal(result.code, 4, result.stderr)
    assert.ok(result.stderr.includes(`postern login --edge ${edge.origin}`), result.stderr)
    assert.ok(!browser.wasStarted())
  })
})

describe('somebody can answer', () => {
  const cases: [string, string[], { pty?: boolean }][] = [
    ['at a terminal', [], { pty: true }],
    ['with --interactive, as an editor starts ssh', ['--interactive'], {}],
  ]
  for (const [what, more, options] of cases) {
    test(`${what}: the browser, and then the command`, async () => {
      const home = await makeSignedOut(edge, 'dev@mycorp.com')
      const browser = await makeMarkingBrowser(edge, home, 'dev@mycorp.com')
      const result = await runPostern(['whoami', ...more], { home, browser: browser.command, ...options })
      assert.equal(result.code, 0, result.stdout + result.stderr)
      assert.match(result.stdout, /dev@mycorp\.com/)
      assert.ok(browser.wasStarted())
    })
  }
})

test('stderr kept by somebody else, as ssh does, but /dev/tty opens: somebody can answer', async () => {
  const home = await makeSignedOut(edge, 'dev@mycorp.com')
  const browser = await makeMarkingBrowser(edge, home, 'dev@mycorp.com')
  const command = [process.execPath, POSTERN, 'whoami'].map(quoteForShell).join(' ')
  const file = path.join(home, 'stderr')
  await using program = new Program('script', ['-qec', `${command} 2> ${quoteForShell(file)}`, '/dev/null'], {
    env: posternEnv({ home, browser: browser.command }),
    stdin: '',
  })
  const ended = await program.ended
  assert.equal(ended.code, 0, ended.stdout + readFileSync(file, 'utf8'))
  assert.ok(browser.wasStarted())
})

describe('login itself is the request', () => {
  test('without a terminal it asks all the same', async () => {
    const home = makeTempFolder('home')
    const browser = await makeMarkingBrowser(edge, home, 'dev@mycorp.com')
    const args = ['login', '--edge', edge.origin, '--ca-file', edge.caFile]
    const result = await runPostern(args, { home, browser: browser.command })
    assert.equal(result.code, 0, result.stderr)
    assert.ok(browser.wasStarted())
  })

  test('with --batch it ends with 4, at a terminal too, and with 0 when there is a session', async () => {
    const home = makeTempFolder('home')
    const browser = await makeMarkingBrowser(edge, home, 'dev@mycorp.com')
    const args = ['login', '--edge', edge.origin, '--ca-file', edge.caFile, '--batch']
    for (const pty of [false, true]) {
      const result = await runPostern(args, { home, browser: browser.command, pty })
      const said = result.stdout + result.stderr
      assert.equal(result.code, 4, said)
      assert.ok(said.includes(`postern login --edge ${edge.origin}`), said)
    }
    assert.ok(!browser.wasStarted())
    await logIn(edge, home, 'dev@mycorp.com')
    const result = await runPostern(args, { home, browser: browser.command })
    assert.equal(result.code, 0, result.stderr)
    assert.match(result.stderr, /signed in to .* as dev@mycorp\.com/)
    assert.ok(!browser.wasStarted())
  })
})

describe('no browser where it need not be, at a terminal', () => {
  async function reach(home: string): Promise<void> {
    const browser = await makeMarkingBrowser(edge, home, 'dev@mycorp.com')
    const args = ['client', 'tls', '--host', service.host, '--interactive']
    const result = await runPostern(args, { home, browser: browser.command, stdin: 'hello' })
    assert.equal(result.stdout, 'hello', result.stderr)
    assert.ok(!browser.wasStarted())
  }

  test('a live session', async () => {
    await reach(await makePerson(edge, 'dev@mycorp.com'))
  })

  test('a session that can be refreshed', async () => {
    const home = await makePerson(edge, 'dev@mycorp.com')
    const { accessToken } = readStoredSession(home)
    changeStoredSession(home, { accessExpiresAt: 0 })
    await reach(home)
    assert.notEqual(readStoredSession(home).accessToken, accessToken)
  })

  test('a live certificate, even when the session is gone', async () => {
    const home = await makePerson(edge, 'dev@mycorp.com')
    await reach(home)
    rmSync(edgeFile(home, 'session.json'))
    await reach(home)
  })

  const connectAsking = async (home: string, args: readonly string[]) => {
    const browser = await makeMarkingBrowser(edge, home, 'dev@mycorp.com')
    const env = { BROWSER: browser.command }
    const options = { home, port: echo.port, name: 'kept', args: ['--interactive', ...args], env }
    const connected = await connectService(options)
    assert.equal(await connected.stop(), 0)
    assert.ok(!browser.wasStarted())
    return connected
  }

  test("a connector's certificate, even when the session is gone", async () => {
    const home = await makePerson(edge, 'dev@mycorp.com')
    const first = await connectAsking(home, [])
    rmSync(edgeFile(home, 'session.json'))
    assert.equal((await connectAsking(home, [])).host, first.host)
  })

  test('an enroll token, where nobody has ever signed in', async () => {
    const owner = await makePerson(edge, 'dev@mycorp.com')
    const claimed = await connectAsking(owner, [])
    const made = await runPostern(['service', 'enroll-token', claimed.label], { home: owner })
    assert.equal(made.code, 0, made.stderr)
    const home = makeTempFolder('home')
    const file = path.join(home, 'token')
    writeFileSync(file, made.stdout, { mode: 0o600 })
    const where = ['--edge', edge.origin, '--ca-file', edge.caFile, '--enroll-token-file', file]
    const options = { home, port: echo.port, name: 'kept', allowedEmailDomains: [] }
    const browser = await makeMarkingBrowser(edge, home, 'dev@mycorp.com')
    const env = { BROWSER: browser.command }
    await using server = await connectService({ ...options, args: ['--interactive', ...where], env })
    assert.equal(server.host, claimed.host)
    assert.ok(!browser.wasStarted())
  })
})
