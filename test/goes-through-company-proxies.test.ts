import assert from 'node:assert/strict'
import { createHash, randomBytes } from 'node:crypto'
import { chmodSync, writeFileSync } from 'node:fs'
import net, { type AddressInfo, type Socket } from 'node:net'
import path from 'node:path'
import { after, before, describe, test } from 'node:test'
import type { Program, ProgramResult } from '../demo/program.ts'
import {
  COMPANY_EDGE,
  openSshSocks,
  startBorderSshd,
  startTinyproxy,
  startTlsProxy,
} from './support/company-network.ts'
import { makeDevBrowser } from './support/dev-browser.ts'
import { type EdgeProcess, startEdge } from './support/edge-process.ts'
import { readEvents, waitForEvent } from './support/event-lines.ts'
import { type FarMachine, startFarMachine } from './support/far-machine.ts'
import { endOfRefused, startListener } from './support/listen.ts'
import { POSTERN, runPostern } from './support/postern.ts'
import { startTcpService, type TcpService } from './support/tcp-services.ts'
import { makeTempFolder } from './support/temp-folder.ts'
import { within } from './support/until.ts'

/** A company's network: its machines know no name of the edge and have no way to it but the proxies at the border, which
 *  are Debian's tinyproxy and a real sshd. The edge is on loopback here, so whatever arrives there came through one. */

const BYTES = randomBytes(3_000_000)
const DIGEST = createHash('sha256').update(BYTES).digest('hex')
const GENEROUS_MS = 120_000

let far: FarMachine
let edge: EdgeProcess
let service: TcpService

before(async () => {
  far = startFarMachine()
  edge = await startEdge({ config: { domain: COMPANY_EDGE } })
  // answers only after the end, with the hash of all that came: half-close, and every byte
  const answerAfterEnd = async ({
    socket,
    ended,
    hash,
  }: Parameters<Parameters<typeof startTcpService>[0]>[0]) => {
    if ((await ended) === 'end') socket.end(hash())
  }
  service = await startTcpService(answerAfterEnd, { address: far.address })
})
after(async () => {
  await service?.[Symbol.asyncDispose]()
  await edge?.[Symbol.asyncDispose]()
  await far?.[Symbol.asyncDispose]()
})

interface Person {
  home: string
  env: NodeJS.ProcessEnv
}

/** Runs `postern` on a machine of the company. */
function start({ home, env }: Person, words: readonly string[], stdin: string | Buffer = ''): Program {
  return far.run([process.execPath, POSTERN, ...words], { home, env, stdin })
}

async function logIn(
  env: NodeJS.ProcessEnv,
  words: readonly string[] = [],
): Promise<Person & { result: ProgramResult }> {
  const home = makeTempFolder('home')
  const browser = await makeDevBrowser(edge, home, 'operator@mycorp.com')
  const login = ['login', '--edge', edge.origin, '--ca-file', edge.caFile, '--browser', browser, ...words]
  return { home, env, result: await start({ home, env }, login).ended }
}

/** @returns the host of the service, once its connector is attached */
async function connect(person: Person, name: string, words: readonly string[] = []) {
  const target = [
    '--host',
    far.address,
    '--port',
    String(service.port),
    '--allowed-email-domains',
    'mycorp.com',
  ]
  const connector = start(person, ['connect', '--json', '--name', name, ...target, ...words])
  const { host } = await waitForEvent(connector, 'ready', undefined, GENEROUS_MS)
  return { connector, host: String(host) }
}

async function assertCarriesEveryByte(
  person: Person,
  host: string,
  words: readonly string[] = [],
): Promise<void> {
  const { code, stdout, stderr } = await start(person, ['client', 'tls', '--host', host, ...words], BYTES)
    .ended
  assert.equal(code, 0, stderr)
  assert.equal(stdout, DIGEST)
}

function assertFailed(result: ProgramResult, code: string, exitCode: number): void {
  assert.equal(result.code, exitCode, result.stderr)
  assert.ok(result.stderr.includes(`(${code})`), result.stderr)
  assert.equal(result.stdout, '')
}

describe('an HTTP proxy', () => {
  test('carries login, API, connector and tunnel, named by HTTPS_PROXY; nothing passes beside it', async () => {
    await using proxy = await startTinyproxy(far.address)
    const person = await logIn({ HTTPS_PROXY: proxy.url })
    assert.equal(person.result.code, 0, person.result.stderr)
    const { connector, host } = await connect(person, 'db')
    await assertCarriesEveryByte(person, host)
    await assertCarriesEveryByte(person, host) // with the certificate of before: only the tunnel
    const asked = new Set(proxy.asked())
    assert.deepEqual([...asked], [`${COMPANY_EDGE}:${edge.port}`])

    // without it, and where NO_PROXY leaves it out, there is no way
    for (const env of [{}, { ...person.env, NO_PROXY: '.corp.test' }]) {
      const result = await start({ ...person, env }, ['client', 'tls', '--host', host]).ended
      assertFailed(result, 'EDGE_UNREACHABLE', 6)
    }
    await connector.stop()
  })

  test('that wants a name and a password gets them from a file or the environment, never from a command line', async () => {
    await using proxy = await startTinyproxy(far.address, ['BasicAuth ann pass-of-ann-77'])
    const file = path.join(makeTempFolder('credentials'), 'proxy')
    writeFileSync(file, 'ann:pass-of-ann-77\n', { mode: 0o600 })
    const named = ['--proxy', proxy.url, '--proxy-credentials-file', file]

    assertFailed((await logIn({ HTTPS_PROXY: proxy.url })).result, 'PROXY_LOGIN_REQUIRED', 6)
    const wrong = proxy.url.replace('//', '//ann:pass-of-bob-78@')
    const refused = (await logIn({ HTTPS_PROXY: wrong })).result
    assertFailed(refused, 'PROXY_LOGIN_REQUIRED', 6)
    const onCommandLine = await runPostern(['login', '--edge', edge.origin, '--proxy', wrong], {
      home: makeTempFolder('home'),
    })
    assertFailed(onCommandLine, 'USAGE_INVALID', 2)
    for (const { stderr } of [refused, onCommandLine]) assert.ok(!stderr.includes('pass-of-'), stderr)
    chmodSync(file, 0o644)
    assertFailed((await logIn({}, named)).result, 'USAGE_INVALID', 2)
    chmodSync(file, 0o600)

    // the browser is another program, with the way of all programs
    const inEnvironment = { HTTPS_PROXY: proxy.url.replace('//', '//ann:pass-of-ann-77@') }
    const person = await logIn(inEnvironment, named)
    assert.equal(person.result.code, 0, person.result.stderr)
    const { connector, host } = await connect({ ...person, env: {} }, 'db with password', named)
    await assertCarriesEveryByte({ ...person, env: {} }, host, named)
    await assertCarriesEveryByte(person, host)
    await connector.stop()
  })

  test('that may not reach the edge says so', async () => {
    await using proxy = await startTinyproxy(far.address, ['ConnectPort 1'])
    const { result } = await logIn({ HTTPS_PROXY: proxy.url })
    assertFailed(result, 'PROXY_REFUSED', 6)
    assert.match(result.stderr, /it answered 403/)
  })
})

describe('an HTTP proxy inside TLS', () => {
  const NAME = 'proxy.corp.test'

  test('carries login, API, connector and tunnel, and is shown no word unless its certificate is good', async () => {
    far.know({ [NAME]: [far.address] })
    await using plain = await startTinyproxy(far.address, ['BasicAuth ann pass-of-ann-77'])
    await using proxy = await startTlsProxy(NAME, plain)
    const withPassword = (url: string) => url.replace('//', '//ann:pass-of-ann-77@')
    // the stand-in browser speaks no TLS with proxies
    const browsers = { HTTPS_PROXY: withPassword(plain.url) }
    const trusted = { POSTERN_PROXY: withPassword(proxy.url), POSTERN_PROXY_CA_FILE: proxy.caFile }
    const person = await logIn({ ...browsers, ...trusted })
    assert.equal(person.result.code, 0, person.result.stderr)
    const before = plain.asked().length
    const { connector, host } = await connect({ ...person, env: trusted }, 'db inside TLS')
    const { POSTERN_PROXY: HTTPS_PROXY } = trusted
    await assertCarriesEveryByte({ ...person, env: { HTTPS_PROXY } }, host, ['--proxy-ca-file', proxy.caFile])
    for (const variable of ['NODE_EXTRA_CA_CERTS', 'SSL_CERT_FILE']) {
      const env = { HTTPS_PROXY, [variable]: proxy.caFile }
      await assertCarriesEveryByte({ ...person, env }, host)
    }
    assert.ok(plain.asked().length > before)
    await connector.stop()

    const asked = plain.asked().length
    const nowhere = proxy.url.replace(NAME, far.address)
    const cases: [NodeJS.ProcessEnv, string, RegExp][] = [
      [
        { HTTPS_PROXY },
        'PROXY_UNTRUSTED',
        /the HTTPS proxy proxy\.corp\.test:\d+ is not trusted: self-signed/,
      ],
      [{ HTTPS_PROXY, NODE_TLS_REJECT_UNAUTHORIZED: '0' }, 'PROXY_UNTRUSTED', /self-signed/],
      [{ ...trusted, POSTERN_PROXY_CA_FILE: edge.caFile }, 'PROXY_UNTRUSTED', /self-signed/],
      [{ ...trusted, POSTERN_PROXY: withPassword(nowhere) }, 'PROXY_UNTRUSTED', /does not match/],
      [
        { ...trusted, POSTERN_PROXY: withPassword(plain.url.replace('http:', 'https:')) },
        'PROXY_UNREACHABLE',
        /but no TLS on them/,
      ],
      [{ POSTERN_PROXY: withPassword(proxy.url.replace('https:', 'http:')) }, 'PROXY_', /the HTTP proxy/],
      [{ ...trusted, POSTERN_PROXY: proxy.url }, 'PROXY_LOGIN_REQUIRED', /wants a user name/],
    ]
    for (const [env, code, sentence] of cases) {
      const result = await start({ ...person, env }, ['client', 'tls', '--host', host]).ended
      assert.equal(result.code, 6, result.stderr)
      assert.ok(result.stderr.includes(`(${code}`), result.stderr)
      assert.match(result.stderr, sentence)
      assert.ok(!result.stderr.includes('pass-of-'), result.stderr)
    }
    assert.equal(plain.asked().length, asked + 1, 'only the last of them came so far as to ask')
    const unreadable = { ...trusted, POSTERN_PROXY_CA_FILE: path.join(person.home, 'nowhere.pem') }
    const result = await start({ ...person, env: unreadable }, ['client', 'tls', '--host', host]).ended
    assertFailed(result, 'USAGE_INVALID', 2)
    assert.match(result.stderr, /ask whoever runs the proxy for its CA/)
  })
})

test('a SOCKS proxy, which is ssh -D, carries login, API, connector and tunnel, and looks the names up', async () => {
  await using sshd = await startBorderSshd(far.address)
  await using socks = await openSshSocks(far, sshd)
  const ALL_PROXY = socks.url
  // the stand-in browser speaks no SOCKS
  await using proxy = await startTinyproxy(far.address)
  const person = await logIn({ POSTERN_PROXY: ALL_PROXY, HTTPS_PROXY: proxy.url })
  assert.equal(person.result.code, 0, person.result.stderr)
  const asked = proxy.asked().length
  const env = { ALL_PROXY }
  const { connector, host } = await connect({ ...person, env }, 'db by socks')
  await assertCarriesEveryByte({ ...person, env }, host)
  assert.equal(proxy.asked().length, asked)
  await connector.stop()

  // ssh closes the connection without a word when the other side cannot reach what was asked for
  const elsewhere = ['login', '--edge', `https://${COMPANY_EDGE}:1`, '--ca-file', edge.caFile]
  const result = await start({ home: makeTempFolder('home'), env }, elsewhere).ended
  assertFailed(result, 'PROXY_UNREACHABLE', 6)
})

describe('a proxy that is none, or does not want to', () => {
  /** What a connection to it gets. */
  async function startBadProxy(serve: (socket: Socket) => void, address = '127.0.0.1') {
    const sockets = new Set<Socket>()
    let count = 0
    const server = net.createServer((socket) => {
      count++
      sockets.add(socket)
      socket.on('error', () => undefined)
      serve(socket)
    })
    await new Promise<void>((resolve) => server.listen(0, address, resolve))
    return {
      host: `${address}:${(server.address() as AddressInfo).port}`,
      url: `http://${address}:${(server.address() as AddressInfo).port}`,
      count: () => count,
      [Symbol.dispose]() {
        for (const socket of sockets) socket.destroy()
        server.close()
      },
    }
  }

  type Serve = (socket: Socket) => unknown
  const PASSWORD = 'pass-of-bob-78'
  /** Answers the first question, and then the second, of SOCKS. */
  const socks =
    (...answers: readonly number[][]): Serve =>
    (socket) => {
      let next = 0
      const answer = () => socket.write(Buffer.from(answers[next++] ?? []))
      socket.on('data', () => next < answers.length && answer())
      answer()
    }
  const cases: readonly [what: string, scheme: string, serve: Serve, code: string, sentence: RegExp][] = [
    [
      'wants a login',
      'http://',
      (socket) => socket.end('HTTP/1.1 407 Login\r\nProxy-Authenticate: Basic realm="x"\r\n\r\n'),
      'PROXY_LOGIN_REQUIRED',
      /wants a user name and a password/,
    ],
    [
      'does not believe the login',
      `http://bob:${PASSWORD}@`,
      (socket) => socket.end('HTTP/1.1 407 Login\r\nProxy-Authenticate: Basic realm="x"\r\n\r\n'),
      'PROXY_LOGIN_REQUIRED',
      /does not accept this user name and password/,
    ],
    [
      'answers 403',
      `http://bob:${PASSWORD}@`,
      (socket) => socket.end('HTTP/1.1 403 Forbidden\r\nContent-Length: 4\r\n\r\nno!\n'),
      'PROXY_REFUSED',
      /does not connect to edge\.corp\.test:\d+: it answered 403/,
    ],
    [
      'answers 502',
      'http://',
      (socket) => socket.end('HTTP/1.1 502 Bad Gateway\r\n\r\n'),
      'PROXY_REFUSED',
      /it answered 502/,
    ],
    [
      'answers garbage',
      'http://',
      (socket) => socket.end(randomBytes(100_000)),
      'PROXY_INVALID',
      /no proxy says/,
    ],
    [
      'begins an answer that is too long',
      'http://',
      (socket) => socket.write(`HTTP/1.1 200 ${'x'.repeat(100_000)}`),
      'PROXY_INVALID',
      /no proxy says/,
    ],
    [
      'sends headers without end',
      'http://',
      (socket) => {
        const more = () => {
          while (!socket.destroyed && socket.write('Via: 1.1 proxy\r\n'.repeat(10)));
        }
        socket.write('HTTP/1.1 200 OK\r\n')
        socket.on('drain', more)
        more()
      },
      'PROXY_INVALID',
      /no proxy says/,
    ],
    [
      'says more than it was asked',
      'http://',
      (socket) => socket.write('HTTP/1.1 200 OK\r\n\r\nHello'),
      'PROXY_INVALID',
      /says more/,
    ],
    [
      'closes the connection',
      'http://',
      (socket) => socket.destroy(),
      'PROXY_UNREACHABLE',
      /closed the connection/,
    ],
    ['says nothing', `http://bob:${PASSWORD}@`, () => undefined, 'PROXY_UNREACHABLE', /does not answer/],
    [
      'speaks no TLS',
      `https://bob:${PASSWORD}@`,
      (socket) => socket.end('HTTP/1.0 400 Bad Request\r\n\r\n'),
      'PROXY_INVALID',
      /speaks no TLS/,
    ],
    [
      'has rules against it',
      'socks5://',
      socks([5, 0], [5, 2, 0, 1, 0, 0, 0, 0, 0, 0]),
      'PROXY_REFUSED',
      /its rules do not allow it/,
    ],
    [
      'does not believe the login of SOCKS',
      `socks5://bob:${PASSWORD}@`,
      socks([5, 2], [1, 1]),
      'PROXY_LOGIN_REQUIRED',
      /does not accept/,
    ],
    [
      'speaks no SOCKS',
      'socks5://',
      (socket) => socket.end('SSH-2.0-x\r\n'),
      'PROXY_INVALID',
      /no proxy says/,
    ],
  ]

  /** Somebody with a certificate for a service, reached through a proxy that works. */
  let person: Person & { host: string }

  before(async () => {
    await using good = await startTinyproxy(far.address)
    const signedIn = await logIn({ HTTPS_PROXY: good.url })
    const { connector, host } = await connect(signedIn, 'behind')
    await assertCarriesEveryByte(signedIn, host)
    await connector.stop()
    person = { ...signedIn, host }
  })

  /** Each of them has to name the proxy, never its password. */
  function assertTold(told: string, proxy: string, code: string, sentence: RegExp): void {
    assert.match(told, sentence)
    assert.ok(told.includes(code), told)
    assert.ok(told.includes(proxy), told)
    assert.ok(!told.includes('pass-of-'), told)
  }

  for (const [what, scheme, serve, code, sentence] of cases) {
    test(`and ${what}: ${code}, at a login, a tunnel and a listener, each after one attempt`, async () => {
      using proxy = await startBadProxy((socket) => {
        socket.once('data', () => serve(socket))
      })
      const env = { POSTERN_PROXY: `${scheme}${proxy.host}` }
      const { home, host } = person
      const words = ['login', '--edge', edge.origin, '--ca-file', edge.caFile]
      const login = runPostern(words, { home: makeTempFolder('home'), env })
      const tunnel = runPostern(['client', 'tls', '--host', host], { home, env, stdin: 'hello' })
      await using listener = await startListener({ home, env, host, args: ['--batch'] })
      assert.equal(await within('the program is told', endOfRefused(listener.port)), 'ECONNRESET')
      const refused = await listener.event('flow.refused')
      assertTold(JSON.stringify(refused), proxy.host, code, sentence)
      for (const result of [await login, await tunnel]) {
        assertFailed(result, code, 6)
        assertTold(result.stderr, proxy.host, `(${code})`, sentence)
      }
      assert.equal(proxy.count(), 3)
    })
  }

  test('and has a name that nobody knows: PROXY_UNREACHABLE', async () => {
    const env = { POSTERN_PROXY: `http://bob:${PASSWORD}@proxy.invalid:3128` }
    const { stderr, ...result } = await runPostern(['client', 'tls', '--host', person.host], {
      home: person.home,
      env,
    })
    assertFailed({ ...result, stderr }, 'PROXY_UNREACHABLE', 6)
    assertTold(
      stderr,
      'proxy.invalid:3128',
      '(PROXY_UNREACHABLE)',
      /its name (is unknown|cannot be looked up now)/,
    )
  })

  test('keeps a connector waiting, and lets it in once it works', async () => {
    await using good = await startTinyproxy(far.address)
    const person = await logIn({ HTTPS_PROXY: good.url })
    const { connector } = await connect(person, 'patient')
    await connector.stop()

    let works = false
    const { hostname, port } = new URL(good.url)
    using door = await startBadProxy((socket) => {
      if (!works) return void socket.destroy()
      const through = net.connect(Number(port), hostname)
      through.on('error', () => socket.destroy())
      socket.pipe(through).pipe(socket)
    }, far.address)
    const target = ['--name', 'patient', '--host', far.address, '--port', String(service.port)]
    const words = ['connect', '--json', '--batch', ...target, '--proxy', door.url]
    const waiting = start({ home: person.home, env: {} }, words)
    const waits = await waiting.output((program) => {
      const lost = readEvents(program).filter(({ event }) => event === 'disconnected')
      return lost.length >= 4 ? lost : undefined
    }, GENEROUS_MS)
    for (const { code, retryInMs } of waits) {
      assert.equal(code, 'PROXY_UNREACHABLE')
      assert.ok(Number(retryInMs) >= 100, String(retryInMs))
    }
    // each has tried once; the one before them asked whether the session is good
    assert.ok(door.count() <= waits.length + 2, `${door.count()} connections for ${waits.length} attempts`)
    works = true
    await waitForEvent(waiting, 'ready', undefined, GENEROUS_MS)
    await waiting.stop()
  })
})
