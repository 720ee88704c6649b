import assert from 'node:assert/strict'
import { createHash, X509Certificate } from 'node:crypto'
import { once } from 'node:events'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import type { AddressInfo } from 'node:net'
import path from 'node:path'
import { after, before, describe, test } from 'node:test'
import tls from 'node:tls'
import { signInWithoutScreen } from '../demo/dev-login.ts'
import type { Program } from '../demo/program.ts'
import { connectService } from './support/connect-service.ts'
import { type EdgeProcess, startEdge } from './support/edge-process.ts'
import { runPostern, spawnPostern } from './support/postern.ts'
import { startEcho } from './support/tcp-services.ts'
import { makeTempFolder } from './support/temp-folder.ts'
import { forgeCertificate } from './support/tls-peer.ts'

const CODE = /\n {2}([B-Z]{4}-[B-Z]{4})\n/
/** No display and no ssh, whatever this machine has. */
const NOWHERE = { BROWSER: '', DISPLAY: '', WAYLAND_DISPLAY: '', SSH_CONNECTION: '', SSH_TTY: '' }

function loginArgs(edge: EdgeProcess, ...more: string[]): string[] {
  return ['login', '--edge', edge.origin, '--ca-file', edge.caFile, ...more]
}

async function typeCode(edge: EdgeProcess, program: Program, email = 'dev@mycorp.com'): Promise<string> {
  const [, userCode = ''] = await program.matches(CODE)
  return signInWithoutScreen(`${edge.origin}/device`, { email, caFile: edge.caFile, userCode })
}

/** A server with a certificate of its own making, which sends the edge's CA along, and keeps what it is told. */
async function startImpostor(edge: EdgeProcess) {
  const own = forgeCertificate({ subjectAltName: 'DNS:edge.localhost', usage: 'serverAuth' })
  let received = ''
  let connections = 0
  const server = tls.createServer({ key: own.key, cert: `${own.cert}\n${readFileSync(edge.caFile, 'utf8')}` })
  server.on('connection', () => (connections += 1))
  server.on('tlsClientError', () => {})
  server.on('secureConnection', (socket) => {
    socket.on('error', () => {})
    socket.on('data', (chunk) => (received += chunk))
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    port: (server.address() as AddressInfo).port,
    received: () => received,
    connections: () => connections,
    [Symbol.asyncDispose]: async () => void server.close(),
  }
}

function fingerprintOf(pemFile: string): string {
  const { raw } = new X509Certificate(readFileSync(pemFile))
  return `sha256:${createHash('sha256').update(raw).digest('hex')}`
}

describe('with login.device: on', { concurrency: true }, () => {
  let edge: EdgeProcess

  before(async () => {
    edge = await startEdge({ config: { login: { device: 'on' } } })
  })
  after(() => edge[Symbol.asyncDispose]())

  test('no display: the address and a code, typed elsewhere, and everything works', async () => {
    const home = makeTempFolder('home')
    await using program = spawnPostern(loginArgs(edge), { home, stdin: '', env: NOWHERE })
    const lastPage = await typeCode(edge, program)
    assert.match(lastPage, /Go back to your terminal/)
    const ended = await program.ended
    assert.equal(ended.code, 0, ended.stderr)
    assert.ok(ended.stderr.includes(`\n  ${edge.origin}/device\n`), ended.stderr)
    assert.match(ended.stderr, /Check there that code and address are yours/)
    assert.match(ended.stderr, /signed in to .* as dev@mycorp\.com/)
    assert.equal(ended.stdout, '')

    await using echo = await startEcho()
    await using service = await connectService({ home, port: echo.port })
    const reached = await runPostern(['client', 'tls', '--host', service.host], { home, stdin: 'hello' })
    assert.equal(reached.stdout, 'hello', reached.stderr)
  })

  test('--no-browser at a display, and inside ssh with one: a code', async () => {
    const cases: [string[], NodeJS.ProcessEnv][] = [
      [['--no-browser'], { ...NOWHERE, DISPLAY: ':0' }],
      [[], { ...NOWHERE, DISPLAY: ':0', SSH_CONNECTION: '192.0.2.1 5 192.0.2.2 22' }],
    ]
    for (const [more, env] of cases) {
      const options = { home: makeTempFolder('home'), stdin: '', env }
      await using program = spawnPostern(loginArgs(edge, ...more), options)
      await program.matches(CODE)
    }
  })

  test('--browser and $BROWSER mean the page, wherever this is', async () => {
    const cases: [string[], NodeJS.ProcessEnv][] = [
      [['--browser', '/bin/true'], NOWHERE],
      [[], { ...NOWHERE, BROWSER: '/bin/true', SSH_TTY: '/dev/pts/9' }],
    ]
    for (const [more, env] of cases) {
      const options = { home: makeTempFolder('home'), stdin: '', env }
      await using program = spawnPostern(loginArgs(edge, ...more), options)
      await program.matches(/https:\/\/edge\.localhost:\d+\/oauth\/auth\?/)
      assert.doesNotMatch(program.stderr, CODE)
    }
  })

  test('a command that needs a session asks with a code too', async () => {
    const home = makeTempFolder('home')
    await using login = spawnPostern(loginArgs(edge), { home, stdin: '', env: NOWHERE })
    await typeCode(edge, login)
    assert.equal((await login.ended).code, 0)
    await runPostern(['logout'], { home })
    await using program = spawnPostern(['whoami', '--interactive'], { home, stdin: '', env: NOWHERE })
    await typeCode(edge, program, 'other@mycorp.com')
    const ended = await program.ended
    assert.match(ended.stdout, /^other@mycorp\.com/, ended.stderr)
  })

  test('the audit log says that it was a device, and from where it was confirmed', async () => {
    const home = makeTempFolder('home')
    await using program = spawnPostern(loginArgs(edge), { home, stdin: '', env: NOWHERE })
    await typeCode(edge, program, 'operator@mycorp.com')
    assert.equal((await program.ended).code, 0)
    const list = await runPostern(['audit', 'list', '--type', 'login.ok', '--json'], { home })
    assert.equal(list.code, 0, list.stderr)
    assert.match(list.stdout, /"kind":\s*"device"/)
    assert.match(list.stdout, /"confirmedFrom":\s*"127\.0\.0\.1"/)
  })

  test('the code is in no log of the edge and in no file of the person', async () => {
    const home = makeTempFolder('home')
    await using program = spawnPostern(loginArgs(edge), { home, stdin: '', env: NOWHERE })
    const [, userCode = ''] = await program.matches(CODE)
    await typeCode(edge, program)
    assert.equal((await program.ended).code, 0)
    const plain = userCode.replace('-', '')
    assert.ok(!edge.logs().includes(userCode) && !edge.logs().includes(plain))
    for (const name of readdirSync(home, { recursive: true, withFileTypes: true })) {
      if (!name.isFile()) continue
      assert.ok(!readFileSync(path.join(name.parentPath, name.name), 'utf8').includes(plain), name.name)
    }
  })
})

describe('with login.device: off', { concurrency: true }, () => {
  let edge: EdgeProcess

  before(async () => {
    edge = await startEdge()
  })
  after(() => edge[Symbol.asyncDispose]())

  test('the address of the page, what is switched off, and how to come from elsewhere', async () => {
    const home = makeTempFolder('home')
    const env = { ...NOWHERE, SSH_CONNECTION: '192.0.2.1 5 192.0.2.2 22' }
    await using program = spawnPostern(loginArgs(edge), { home, stdin: '', env })
    const [url] = await program.matches(/https:\/\/edge\.localhost:\d+\/oauth\/auth\?\S+/)
    await program.matches(/login\.device\) is switched off at the edge/)
    const [, port] = await program.matches(/ssh -N -L (\d+):127\.0\.0\.1:\d+ /)
    assert.ok(decodeURIComponent(url).includes(`http://127.0.0.1:${port}/callback`))
    await signInWithoutScreen(url, { email: 'dev@mycorp.com', caFile: edge.caFile })
    assert.equal((await program.ended).code, 0)
  })

  test('a browser that starts and shows nothing: after 20 s one line more, and the login goes on', async () => {
    const home = makeTempFolder('home')
    await using program = spawnPostern(loginArgs(edge), { home, stdin: '', browser: '/bin/true' })
    const [url] = await program.matches(/https:\/\/edge\.localhost:\d+\/oauth\/auth\?\S+/)
    await program.matches(/no answer from a browser yet: open the page above yourself/, 60_000)
    await signInWithoutScreen(url, { email: 'dev@mycorp.com', caFile: edge.caFile })
    const ended = await program.ended
    assert.equal(ended.code, 0, ended.stderr)
  })
})

describe('a private CA named by its fingerprint', { concurrency: true }, () => {
  let edge: EdgeProcess

  before(async () => {
    edge = await startEdge({ config: { login: { device: 'on' } } })
  })
  after(() => edge[Symbol.asyncDispose]())

  test('the line that the edge prints is enough: the root is pinned, also for later commands', async () => {
    const home = makeTempFolder('home')
    const pin = fingerprintOf(edge.caFile)
    const [, line = ''] = await edge.program.matches(/sign in: postern (login --edge .*)\n/)
    assert.equal(line, `login --edge ${edge.origin} --ca-fingerprint ${pin}`)
    await using program = spawnPostern(line.split(' '), { home, stdin: '', env: NOWHERE })
    await typeCode(edge, program)
    const ended = await program.ended
    assert.equal(ended.code, 0, ended.stderr)
    const whoami = await runPostern(['whoami', '--batch'], { home })
    assert.equal(whoami.code, 0, whoami.stderr)
    const [folder = ''] = readdirSync(path.join(home, 'edges'))
    const { caPem } = JSON.parse(readFileSync(path.join(home, 'edges', folder, 'edge.json'), 'utf8'))
    assert.ok(new X509Certificate(caPem).raw.equals(new X509Certificate(readFileSync(edge.caFile)).raw))
  })

  test('another fingerprint: EDGE_UNTRUSTED, and nothing is remembered', async () => {
    const home = makeTempFolder('home')
    const pin = `sha256:${'0'.repeat(64)}`
    const args = ['login', '--edge', edge.origin, '--ca-fingerprint', pin]
    const result = await runPostern(args, { home, env: NOWHERE })
    assert.equal(result.code, 6, result.stderr)
    assert.match(result.stderr, /does not show a certificate with this fingerprint \(EDGE_UNTRUSTED\)/)
    assert.ok(!existsSync(path.join(home, 'edges')))
  })

  test('somebody else who shows the same CA certificate without its key is not believed', async () => {
    // a server whose own self-signed certificate is followed by the edge's CA
    await using impostor = await startImpostor(edge)
    const origin = `https://edge.localhost:${impostor.port}`
    const args = ['login', '--edge', origin, '--ca-fingerprint', fingerprintOf(edge.caFile)]
    const result = await runPostern(args, { home: makeTempFolder('home'), env: NOWHERE })
    assert.equal(result.code, 6, result.stderr)
    assert.match(result.stderr, /EDGE_UNTRUSTED/)
    assert.deepEqual([impostor.connections() > 0, impostor.received()], [true, ''], 'nothing was sent')
  })

  test('malformed fingerprints are a matter of usage', async () => {
    for (const pin of ['sha256:12', 'abc', `sha1:${'0'.repeat(40)}`, `sha256:${'g'.repeat(64)}`]) {
      const args = ['login', '--edge', edge.origin, '--ca-fingerprint', pin]
      const result = await runPostern(args, { home: makeTempFolder('home') })
      assert.equal(result.code, 2, result.stderr)
    }
  })
})
