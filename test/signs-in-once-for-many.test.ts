import assert from 'node:assert/strict'
import { chmodSync, existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { get } from 'node:http'
import path from 'node:path'
import { after, before, beforeEach, describe, test } from 'node:test'
import { signInWithoutScreen } from '../demo/dev-login.ts'
import type { Program, ProgramResult } from '../demo/program.ts'
import { type ConnectedService, connectService } from './support/connect-service.ts'
import { logIn } from './support/dev-browser.ts'
import { type EdgeProxy, startEdgeBehindProxy } from './support/edge-proxy.ts'
import { pageAddressIn, signInUpToCallback } from './support/login-page.ts'
import { runPostern, spawnPostern } from './support/postern.ts'
import {
  changeStoredSession,
  copyHome,
  countAccessTokens,
  hasSession,
  readStoredSession,
} from './support/stored-session.ts'
import { startEcho, type TcpService } from './support/tcp-services.ts'
import { makeTempFolder } from './support/temp-folder.ts'
import { until, within } from './support/until.ts'

/** Editors, `ssh` with many hosts and scripts start many `client tls` at once. One of them asks the person; the
 *  others wait for it, take over when it dies, and give up when the person does not want to. */

const PERSON = 'ann@mycorp.com'
const MANY = 20
const TIMEOUT_MS = 90_000

let wire: EdgeProxy
let echo: TcpService
let service: ConnectedService

before(async () => {
  wire = await startEdgeBehindProxy()
  echo = await startEcho()
  const home = makeTempFolder('home')
  await logIn(wire.edge, home, 'operator@mycorp.com')
  service = await connectService({ home, port: echo.port })
})
after(async () => {
  await service?.[Symbol.asyncDispose]()
  await echo?.[Symbol.asyncDispose]()
  await wire?.[Symbol.asyncDispose]()
})

describe('one login for twenty commands', () => {
  let home: string
  let browser: string

  /** Somebody who knows the edge, and has no session and no certificate. */
  beforeEach(async () => {
    home = makeTempFolder('home')
    await logIn(wire.edge, home, PERSON)
    await runPostern(['logout'], { home })
    // notes that it was started, and leaves the page to the test
    browser = path.join(home, 'noting-browser')
    writeFileSync(browser, `#!/bin/sh\necho "$1" >> '${opened()}'\n`)
    chmodSync(browser, 0o755)
  })

  const opened = () => path.join(home, 'opened')
  const browsers = () =>
    existsSync(opened()) ? readFileSync(opened(), 'utf8').split('\n').filter(Boolean) : []
  const startOne = (stdin = 'hello') =>
    spawnPostern(['client', 'tls', '--host', service.host, '--browser', browser], { home, stdin })
  const startMany = (count: number) => Array.from({ length: count }, () => startOne())
  const signIn = (url: string) => signInWithoutScreen(url, { email: PERSON, caFile: wire.edge.caFile })

  /** Waits for the one that asks the person now, unless it has asked before. */
  function nextAsking(programs: readonly Program[], before: ReadonlySet<Program> = new Set()) {
    return until(
      'somebody opens a browser',
      () => {
        const asking = programs.find(
          (program) =>
            !before.has(program) && pageAddressIn(program.stderr) && browsers().length > before.size,
        )
        return asking && { asking, url: pageAddressIn(asking.stderr)! }
      },
      TIMEOUT_MS,
    )
  }
  const allWait = (programs: readonly Program[]) =>
    within(
      'the others wait',
      Promise.all(programs.map((program) => program.matches(/waiting for another postern/, TIMEOUT_MS))),
      TIMEOUT_MS,
    )
  const allEnd = (programs: readonly Program[]) =>
    within('all end', Promise.all(programs.map((program) => program.ended)), TIMEOUT_MS)

  function assertServed(results: readonly ProgramResult[]): void {
    for (const { code, stdout, stderr } of results) assert.deepEqual([code, stdout], [0, 'hello'], stderr)
  }

  test('without a session: one browser, twenty successes', async () => {
    const programs = startMany(MANY)
    const { url } = await nextAsking(programs)
    await signIn(url)
    assertServed(await allEnd(programs))
    assert.equal(browsers().length, 1)
  })

  test('on terminals, too', async () => {
    const args = ['client', 'tls', '--host', service.host]
    const options = { home, browser, pty: true, stdin: '' }
    const programs = Array.from({ length: 5 }, () => spawnPostern(args, options))
    const [url] = await until('a browser opens', () => browsers().length > 0 && browsers())
    await signIn(url!)
    for (const { code, stdout } of await allEnd(programs)) assert.equal(code, 0, stdout)
    assert.equal(browsers().length, 1)
  })

  for (const [what, change] of [
    ['whose access token is over as well', { accessExpiresAt: 0 }],
    ['that looks good in the file', {}],
  ] as const) {
    test(`with a session that has ended, ${what}: one browser, twenty successes`, async () => {
      await logIn(wire.edge, home, PERSON)
      const elsewhere = copyHome(home)
      assert.equal((await runPostern(['logout'], { home: elsewhere })).code, 0)
      changeStoredSession(home, change)
      const programs = startMany(MANY)
      const { url } = await nextAsking(programs)
      await signIn(url)
      assertServed(await allEnd(programs))
      assert.equal(browsers().length, 1)
    })
  }

  test('the one that asks is killed at each of its steps: the next one asks, the others are served', async () => {
    const programs = startMany(MANY)
    const killed = new Set<Program>()
    const kill = async (program: Program) => {
      await program.stop('SIGKILL')
      wire.release()
      killed.add(program)
    }
    const steps: ((program: Program, url: string) => Promise<void>)[] = [
      // the browser was started
      async () => allWait(programs.filter((program) => !pageAddressIn(program.stderr))).then(() => {}),
      // the callback has come
      async (_program, url) => openAndLeave(await signInUpToCallback(url, wire.edge, PERSON)),
      // the edge has the token request, or an answer to it is on its way
      ...[1, 2].map((sends) => async (_program: Program, url: string) => {
        const callback = await signInUpToCallback(url, wire.edge, PERSON)
        const held = wire.holdAfter(sends)
        await openAndLeave(callback)
        await held
      }),
      // the new session was stored
      async (_program, url) => {
        const signedIn = signIn(url).catch(() => undefined)
        await until('the session is stored', () => hasSession(home), TIMEOUT_MS)
        void signedIn
      },
    ]
    for (const step of steps) {
      const { asking, url } = await nextAsking(programs, killed)
      await step(asking, url)
      await kill(asking)
    }
    assertServed(await allEnd(programs.filter((program) => !killed.has(program))))
    assert.equal(browsers().length, steps.length)
    assert.equal((await runPostern(['whoami'], { home })).code, 0)
  })

  test('the first login is cancelled: nobody else opens a browser, and the next command asks again', async () => {
    const first = startOne()
    await nextAsking([first])
    const waiting = startMany(MANY - 1)
    await allWait(waiting)
    first.signal('SIGINT')
    assert.equal((await first.ended).code, 130)
    for (const { code, stderr } of await allEnd(waiting)) {
      assert.equal(code, 4, stderr)
      assert.match(stderr, /LOGIN_FAILED/)
    }
    assert.equal(browsers().length, 1)

    const again = startOne()
    const { url } = await until('it asks again', () => {
      const url = pageAddressIn(again.stderr)
      return url !== undefined && { url }
    })
    await signIn(url)
    assertServed([await again.ended])
  })

  test('the first login fails: who waited for it says so, and a retry signs in', async () => {
    const first = startOne()
    const { url } = await nextAsking([first])
    const waiting = startMany(MANY - 1)
    await allWait(waiting)
    const { searchParams } = new URL(url)
    const refusal = new URL(searchParams.get('redirect_uri')!)
    refusal.searchParams.set('error', 'access_denied')
    refusal.searchParams.set('state', searchParams.get('state')!)
    refusal.searchParams.set('iss', wire.edge.origin)
    await openAndLeave(refusal)
    assert.match((await first.ended).stderr, /LOGIN_REFUSED/)
    for (const { code, stderr } of await allEnd(waiting)) {
      assert.equal(code, 4, stderr)
      assert.match(stderr, /LOGIN_FAILED/)
    }
    assert.equal(browsers().length, 1)

    rmSync(opened())
    const retries = startMany(5)
    await signIn((await nextAsking(retries)).url)
    assertServed(await allEnd(retries))
    assert.equal(browsers().length, 1)
  })
})

describe('the moment a token expires', () => {
  let home: string

  beforeEach(async () => {
    home = makeTempFolder('home')
    await logIn(wire.edge, home, PERSON)
    changeStoredSession(home, { accessExpiresAt: Date.now() })
  })

  const startMany = (count: number) =>
    Array.from({ length: count }, () =>
      spawnPostern(['client', 'tls', '--host', service.host, '--batch'], { home, stdin: 'hello' }),
    )

  test('fifty commands: nobody shows an error, and the edge sees one refresh, or a few', async () => {
    const before = countAccessTokens(wire.edge)
    const results = await Promise.all(startMany(50).map((program) => program.ended))
    for (const { code, stdout, stderr } of results) assert.deepEqual([code, stdout], [0, 'hello'], stderr)
    const refreshes = countAccessTokens(wire.edge) - before
    assert.ok(refreshes >= 1 && refreshes <= 5, `${refreshes} refreshes`)
  })

  test('killing some of them at any point leaves the session whole', async () => {
    const refreshToken = readStoredSession(home).refreshToken
    for (let round = 0; round < 3; round++) {
      changeStoredSession(home, { accessExpiresAt: Date.now() })
      const programs = startMany(12)
      // whoever it is, and whatever it was about to send or to store
      for (let kills = 0; kills < 6; kills++) {
        for (let skipped = Math.floor(Math.random() * 4); skipped >= 0; skipped--) {
          await Promise.race([wire.sent(), ...programs.map((program) => program.ended)])
        }
        const alive = programs.filter((program) => program.isRunning)
        alive[Math.floor(Math.random() * alive.length)]?.signal('SIGKILL')
      }
      const results = await Promise.all(programs.map((program) => program.ended))
      for (const { code, signal, stderr } of results) if (signal === null) assert.equal(code, 0, stderr)
      const killed = results.filter(({ signal }) => signal === 'SIGKILL').length
      assert.ok(killed > 0 && killed < programs.length, `${killed} were killed`)
      const session = readStoredSession(home)
      assert.equal(session.email, PERSON)
      assert.equal(session.refreshToken, refreshToken)
      const { code, stderr } = await runPostern(['whoami', '--batch'], { home })
      assert.equal(code, 0, stderr)
    }
  })
})

/** A browser that opens the address and does not stay for the answer's page. */
function openAndLeave(url: URL): Promise<void> {
  return new Promise((resolve, reject) => {
    get(url, (response) => {
      response.resume()
      resolve()
    }).on('error', reject)
  })
}
