import assert from 'node:assert/strict'
import { existsSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { describe, it } from 'node:test'
import { setTimeout as pause } from 'node:timers/promises'
import { FramedEnd } from '@postern/shared/stream/framed-end'
import { edgeFolder } from '../src/credentials/home.ts'
import { FakeEdge, refusal } from './fake-edge.ts'
import { createHome, runPostern, startPostern } from './run-postern.ts'
import { knownEdge, signedIn } from './signed-in.ts'

/** A browser without a screen: follows redirects, knows the CA, leaves the last page in a file. */
const BROWSER = `
const [url, caFile, pageFile] = process.argv.slice(2)
const https = require('node:https'), http = require('node:http'), fs = require('node:fs')
const lookup = (name, options, done) => options.all ? done(null, [{ address: '127.0.0.1', family: 4 }]) : done(null, '127.0.0.1', 4)
function open(address) {
  const url = new URL(address)
  const client = url.protocol === 'https:' ? https : http
  client.get(url, { ca: fs.readFileSync(caFile), lookup }, (response) => {
    if (response.headers.location) return open(new URL(response.headers.location, url))
    let text = ''
    response.on('data', (chunk) => (text += chunk)).on('end', () => {
      fs.writeFileSync(pageFile + '.new', JSON.stringify({ url: url.href, text, headers: response.headers }))
      fs.renameSync(pageFile + '.new', pageFile)
    })
  })
}
open(url)
`

function prepare(home: string, edge: FakeEdge) {
  const caFile = path.join(home, 'ca.pem')
  const script = path.join(home, 'browser.cjs')
  const pageFile = path.join(home, 'page.json')
  writeFileSync(caFile, edge.ca.certificatePem)
  writeFileSync(script, BROWSER)
  const browser = `'${process.execPath}' "${script}" %s ${caFile} ${pageFile}`
  const login = ['login', '--edge', edge.origin, '--ca-file', caFile, '--browser', browser]
  return { caFile, pageFile, browser, login }
}

/** Waits for it: the command may be done before its browser is. */
async function readPage(
  file: string,
): Promise<{ url: string; text: string; headers: Record<string, string> }> {
  for (let left = 600; left > 0 && !existsSync(file); left--) await pause(100)
  return JSON.parse(readFileSync(file, 'utf8'))
}

describe('login', () => {
  it('signs in through the browser and closes the loop in words', async () => {
    using home = createHome()
    await using edge = await new FakeEdge().start()
    const { login, pageFile } = prepare(home.folder, edge)
    const { code, stdout, stderr } = await runPostern(home.folder, login)
    assert.equal(code, 0, stderr)
    assert.equal(stdout, '')
    assert.match(stderr, /\/oauth\/auth\?.*dpop_jkt=/)
    assert.match(stderr, /signed in to https:\/\/edge\.localhost:\d+ as dev@mycorp\.com, for 1 h/)
    const page = await readPage(pageFile)
    assert.match(page.url, /^http:\/\/127\.0\.0\.1:\d+\/done$/)
    assert.match(page.text, /You are signed in.*dev@mycorp\.com/)
    assert.equal(page.headers['cache-control'], 'no-store')
    assert.match(page.headers['content-security-policy']!, /default-src 'none'/)
  })

  it('keeps its state from everybody else', async () => {
    using home = createHome()
    await using edge = await new FakeEdge().start()
    await runPostern(home.folder, prepare(home.folder, edge).login)
    const folder = edgeFolder(home.folder, edge.origin)
    assert.equal(statSync(folder).mode & 0o777, 0o700)
    for (const name of readdirSync(folder)) {
      assert.equal(statSync(path.join(folder, name)).mode & 0o777, 0o600, name)
    }
    const { code, stdout } = await runPostern(home.folder, ['whoami', '--json'])
    assert.equal(code, 0)
    assert.equal(JSON.parse(stdout).identity.email, 'dev@mycorp.com')
  })

  it('says why the edge refused, exit 5, and knows no edge afterwards', async () => {
    using home = createHome()
    await using edge = await new FakeEdge().start()
    edge.denyLogin = 'the address is not verified'
    const { login, pageFile } = prepare(home.folder, edge)
    const { code, stderr } = await runPostern(home.folder, login)
    assert.equal(code, 5)
    assert.match(stderr, /the address is not verified \(LOGIN_REFUSED\)/)
    assert.match((await readPage(pageFile)).text, /You are not signed in/)
    assert.equal(existsSync(path.join(edgeFolder(home.folder, edge.origin), 'edge.json')), false)
  })

  it('does not follow an issuer with an endpoint elsewhere', async () => {
    using home = createHome()
    await using edge = await new FakeEdge().start()
    for (const metadata of [
      { token_endpoint: 'https://evil.example/token' },
      { authorization_endpoint: 'http://edge.localhost/auth' },
      { revocation_endpoint: `https://edge.localhost:1/revoke` },
    ]) {
      edge.metadata = metadata
      const { code, stderr } = await runPostern(home.folder, prepare(home.folder, edge).login)
      assert.equal(code, 6, stderr)
      assert.match(stderr, /is not its own.*EDGE_UNTRUSTED/)
    }
  })

  it('does not believe an edge that claims another domain', async () => {
    using home = createHome()
    await using edge = await new FakeEdge().start()
    edge.override = ({ path: called }) =>
      called === '/v1/edge'
        ? {
            status: 200,
            body: { domain: 'localhost', issuer: edge.origin, clientId: 'x', version: '0', now: 0 },
          }
        : undefined
    const { code, stderr } = await runPostern(home.folder, prepare(home.folder, edge).login)
    assert.equal(code, 6)
    assert.match(stderr, /EDGE_UNTRUSTED/)
  })

  it('does not trust a CA that it was not given, and says how to name it', async () => {
    using home = createHome()
    await using edge = await new FakeEdge().start()
    const { code, stderr } = await runPostern(home.folder, ['login', '--edge', edge.origin, '--no-browser'])
    assert.equal(code, 6)
    assert.match(stderr, /EDGE_UNTRUSTED/)
    assert.ok(stderr.includes(`postern login --edge ${edge.origin} --ca-file ca.pem`), stderr)
  })

  it('tells how far the clock is off, and signs in nevertheless', async () => {
    using home = createHome()
    await using edge = await new FakeEdge().start()
    edge.clockMs = 600_000
    const { code, stderr } = await runPostern(home.folder, prepare(home.folder, edge).login)
    assert.equal(code, 0, stderr)
    assert.match(stderr, /this machine's clock is (9|10) min.* behind the edge's/)
  })

  it('goes to the next browser of $BROWSER when one does not start or fails', async () => {
    using home = createHome()
    await using edge = await new FakeEdge().start()
    const { login, browser } = prepare(home.folder, edge)
    const env = { BROWSER: `/no/such/browser:false %s:${browser}` }
    const { code, stderr } = await runPostern(home.folder, login.slice(0, -2), { env })
    assert.equal(code, 0, stderr)
  })

  it('goes on without a browser: somebody opens the printed page', async () => {
    using home = createHome()
    await using edge = await new FakeEdge().start()
    const { login, caFile, pageFile } = prepare(home.folder, edge)
    using running = startPostern(home.folder, [...login.slice(0, -2), '--no-browser'])
    let stderr = ''
    const url = await new Promise<string>((resolve) => {
      running.child.stderr!.on('data', (chunk: Buffer) => {
        stderr += chunk
        const found = /https:\S+\/oauth\/auth\S+/.exec(stderr)
        if (found && stderr.endsWith('\n')) resolve(found[0])
      })
    })
    const { spawn } = await import('node:child_process')
    spawn(process.execPath, [path.join(home.folder, 'browser.cjs'), url, caFile, pageFile])
    assert.equal((await running.finished).code, 0)
  })
})

describe('a session that is needed', () => {
  const TLS = ['client', 'tls', '--host', 'crimson-thunder-8434.edge.localhost']

  function closing(edge: FakeEdge): void {
    edge.onFlow = (socket) => {
      const end = new FramedEnd(socket)
      end.receive({ chunk() {}, end() {}, drain() {}, cut() {} })
      end.resume()
      end.end(() => undefined)
    }
  }

  it('is signed in once for many processes', async () => {
    using home = createHome()
    await using edge = await new FakeEdge().start()
    knownEdge(home.folder, edge)
    closing(edge)
    const { browser } = prepare(home.folder, edge)
    const hold = Promise.withResolvers<void>()
    edge.holdLogin = hold.promise
    using first = startPostern(home.folder, [...TLS, '--browser', browser])
    await first.sees('/oauth/auth')
    using second = startPostern(home.folder, [...TLS, '--browser', browser])
    using third = startPostern(home.folder, [...TLS, '--interactive'])
    for (const other of [second, third]) await other.sees('waiting for another postern process')
    hold.resolve()
    for (const { finished } of [first, second, third]) {
      const { code, stderr } = await finished
      assert.equal(code, 0, stderr)
    }
    assert.equal(edge.callsTo('/oauth/token').length, 1)
  })

  it('that was denied opens no further browser for those who waited', async () => {
    using home = createHome()
    await using edge = await new FakeEdge().start()
    knownEdge(home.folder, edge)
    edge.denyLogin = 'no'
    const log = path.join(home.folder, 'browsers')
    const { browser } = prepare(home.folder, edge)
    const counted = `sh -c 'echo >> ${log}; exec "$@"' sh ${browser}`
    const hold = Promise.withResolvers<void>()
    edge.holdLogin = hold.promise
    using first = startPostern(home.folder, [...TLS, '--browser', counted])
    await first.sees('/oauth/auth')
    using second = startPostern(home.folder, [...TLS, '--browser', counted])
    using third = startPostern(home.folder, [...TLS, '--browser', counted])
    const others = [second, third]
    await Promise.all(others.map((other) => other.sees('waiting for another postern process')))
    hold.resolve()
    assert.equal((await first.finished).code, 5)
    for (const other of others) assert.equal((await other.finished).code, 4)
    assert.equal(readFileSync(log, 'utf8'), '\n')
  })

  it('is refreshed when its token has run out or is refused', async () => {
    using home = createHome()
    await using edge = await new FakeEdge().start()
    signedIn(home.folder, edge, { accessExpiresAt: 0 })
    assert.equal((await runPostern(home.folder, ['whoami', '--batch'])).code, 0)
    assert.equal(edge.callsTo('/oauth/token').length, 1)
    let refused = 0
    edge.override = ({ path: called }) =>
      called === '/v1/session' && refused++ === 0 ? refusal('SESSION_ENDED', 'unknown token', 401) : undefined
    assert.equal((await runPostern(home.folder, ['whoami', '--batch'])).code, 0)
    assert.equal(edge.callsTo('/oauth/token').length, 2)
  })

  it('has ended at the edge: exit 4, the line to paste, nothing kept', async () => {
    using home = createHome()
    await using edge = await new FakeEdge().start()
    const known = signedIn(home.folder, edge, { accessExpiresAt: 0 })
    edge.override = ({ path: called }) =>
      called === '/oauth/token' ? { status: 400, body: { error: 'invalid_grant' } } : undefined
    const { code, stderr } = await runPostern(home.folder, ['whoami'])
    assert.equal(code, 4)
    assert.ok(stderr.includes(`postern login --edge ${edge.origin}\n`), stderr)
    assert.equal(existsSync(path.join(known.folder, 'session.json')), false)
  })
})

describe('logout', () => {
  it('ends the session, forgets tokens and certificates, keeps the edge', async () => {
    using home = createHome()
    await using edge = await new FakeEdge().start()
    const { folder } = signedIn(home.folder, edge)
    const { code } = await runPostern(home.folder, ['logout'])
    assert.equal(code, 0)
    assert.equal(edge.calls.at(-1)?.method, 'DELETE')
    assert.equal(existsSync(path.join(folder, 'session.json')), false)
    assert.equal(existsSync(path.join(folder, 'edge.json')), true)
  })

  it('forgets on this machine when the edge is away, and says so', async () => {
    using home = createHome()
    const edge = await new FakeEdge().start()
    const { folder } = signedIn(home.folder, edge)
    await edge[Symbol.asyncDispose]()
    const { code, stderr } = await runPostern(home.folder, ['logout'])
    assert.equal(code, 0)
    assert.match(stderr, /could not tell the edge/)
    assert.equal(existsSync(path.join(folder, 'session.json')), false)
  })
})
