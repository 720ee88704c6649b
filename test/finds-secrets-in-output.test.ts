import assert from 'node:assert/strict'
import { generateKeyPairSync, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import path from 'node:path'
import { after, before, describe, test } from 'node:test'
import { pathToFileURL } from 'node:url'
import { ENROLL_TOKEN_FORM } from '@postern/shared/api/enroll'
import { Program } from '../demo/program.ts'
import { keepOutput, makeRunFolder, noteSecret } from './secrets/run-record.ts'
import { KINDS_OF_A_WHOLE_RUN, scanOutputs } from './secrets/scan.ts'
import { ENROLL_TOKEN } from './secrets/stored-secrets.ts'
import { makeTempFolder } from './support/temp-folder.ts'

/** The run of all tests ends with a look for secrets in everything that was said (test/run.ts). Here each kind is
 *  said once by somebody, and has to be found. */

const RECORD = new URL('./secrets/record-run.ts', import.meta.url)
const secret = () => randomBytes(32).toString('base64url')

describe('a secret that a program says is found', () => {
  const run = makeRunFolder()
  const home = makeTempFolder('home')
  const edge = makeTempFolder('edge')
  const planted = plantSecrets(home, edge)
  /** By the name of who says it. */
  let found: Map<string, string[]>

  before(async () => {
    await using server = await startServer(planted)
    await runTestProcess({ run, home, edge, planted, origin: server.origin })
    noteSecret(run, { kind: 'database password', value: planted['database password']! })
    found = new Map()
    for (const { source, kind } of scanOutputs(run).findings) {
      const name = source.command.at(-1)!
      found.set(name, [...(found.get(name) ?? []), kind])
    }
  })
  after(() => rmSync(run, { recursive: true }))

  for (const kind of KINDS_OF_A_WHOLE_RUN) {
    test(kind, () => assert.ok(found.get(kind)?.includes(kind), `found ${found.get(kind)}`))
  }
  test('and nothing where nobody says one', () => {
    assert.deepEqual([...found.keys()].sort(), Object.keys(planted).sort())
  })
})

describe('a secret that nobody has noted is found by its form', () => {
  const json = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url')
  const forms: Record<string, string> = {
    'a private key': '-----BEGIN EC PRIVATE KEY-----',
    'a signed token': `${json({ alg: 'ES256', typ: 'at' })}.${json({ sub: 'somebody', exp: 1 })}.${secret()}`,
    'an enroll token': `postern_enroll_${secret()}`,
    'an authorization code': `GET /callback?state=x&code=${secret()}`,
    'a token by its name': `{"access_token":"${secret()}"}`,
    'a device code by its name': `device_code=${secret()}`,
    'a cookie': `cookie: __Host-postern=${secret()}`,
    'an Authorization header': `authorization: DPoP ${secret()}`,
  }
  for (const [kind, text] of Object.entries(forms)) {
    test(kind, () => assert.deepEqual(kindsIn(text), [kind]))
  }
})

test('a secret is found in an address, in base64, between other bytes, and among the arguments', () => {
  const value = `p/${secret()}=`
  const note = { kind: 'client secret', value }
  for (const form of [
    encodeURIComponent(value),
    Buffer.from(value).toString('base64url'),
    `\xff${value}\0`,
  ]) {
    assert.deepEqual(kindsIn(form, { note }), ['client secret'])
  }
  assert.deepEqual(kindsIn('', { note, command: ['postern', value] }), ['client secret'])
  assert.deepEqual(kindsIn(value.slice(0, -1), { note }), [])
})

test('what looks like a secret and is none is not found', () => {
  const { publicKey } = generateKeyPairSync('rsa', { modulusLength: 2048 })
  const texts = [
    `open https://edge.example/oauth/auth?client_id=postern-cli&state=${secret()}&code_challenge=${secret()}`,
    `SHA256:${secret()} crimson-thunder-8434.edge.example.com`,
    publicKey.export({ type: 'spki', format: 'pem' }) as string,
    'access token expired, refresh token refused; DPoP proof not accepted',
  ]
  for (const text of texts) assert.deepEqual(kindsIn(text), [])
})

test('an enroll token may stand on the stdout of the command that makes it, and nowhere else', () => {
  const token = `postern_enroll_${secret()}`
  const command = ['postern', 'service', 'enroll-token', 'calm-glade-9129']
  assert.deepEqual(kindsIn(token, { command }), [])
  assert.deepEqual(kindsIn(token, { command, stream: 'stderr' }), ['an enroll token'])
  assert.deepEqual(kindsIn(token, { command: [...command, '--out', 'file'] }), ['an enroll token'])
  assert.match(token, ENROLL_TOKEN_FORM)
  assert.match(token, ENROLL_TOKEN)
})

interface Said {
  note?: { kind: string; value: string }
  command?: string[]
  stream?: 'stdout' | 'stderr'
}

function kindsIn(text: string, { note, command = ['postern'], stream = 'stdout' }: Said = {}): string[] {
  const run = makeRunFolder()
  try {
    if (note) noteSecret(run, note)
    keepOutput(run, { test: 'a.test.ts', command, stream })(Buffer.from(text, 'latin1'))
    return scanOutputs(run).findings.map(({ kind }) => kind)
  } finally {
    rmSync(run, { recursive: true })
  }
}

/** State folders as the programs make them, and what has to be found of them, by its kind. */
function plantSecrets(home: string, edge: string): Record<string, string> {
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const dpopKey = privateKey.export({ format: 'jwk' })
  const issuerKey = generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey.export({ format: 'jwk' })
  const session = { accessToken: secret(), refreshToken: secret(), dpopKey }
  const [clientKey, connectorKey, authorityKey] = [makePem(), makePem(), makePem()]
  const clientSecret = secret()
  const file = (folder: string, name: string, content: string | object) => {
    mkdirSync(path.dirname(path.join(folder, name)), { recursive: true })
    writeFileSync(
      path.join(folder, name),
      typeof content === 'string' ? content : JSON.stringify(content, null, 2),
    )
  }
  const known = 'edges/edge.localhost_443'
  file(home, `${known}/session.json`, session)
  file(home, `${known}/certificates/a.json`, { keyPem: clientKey })
  file(home, `${known}/connectors/svc_1/0/certificate.json`, { keyPem: connectorKey })
  file(edge, 'ca/client-ca.key', authorityKey)
  file(edge, 'login-keys.json', { cookieKeys: [secret()], signingKey: issuerKey })
  file(edge, 'upstream-client-secret', `${clientSecret}\n`)
  file(edge, 'edge.yaml', { data_dir: edge })
  return {
    'access token': session.accessToken,
    'refresh token': session.refreshToken,
    'DPoP key': dpopKey.d!,
    'client key': lineOf(clientKey, 1),
    'connector key': lineOf(connectorKey, 2),
    'authority key': lineOf(authorityKey, 1),
    'issuer key': issuerKey.d!,
    'client secret': clientSecret,
    'ID token': secret(),
    'authorization code': secret(),
    'device code': secret(),
    cookie: secret(),
    'enroll token': `postern_enroll_${secret()}`,
    'database password': 'pass word%&@: of nobody',
  }
}

function makePem(): string {
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  return privateKey.export({ type: 'pkcs8', format: 'pem' }) as string
}

function lineOf(pem: string, line: number): string {
  return pem.split('\n')[line]!
}

/** Answers as an edge does, with secrets at each place where it puts some. */
async function startServer(planted: Record<string, string>): Promise<{ origin: string } & AsyncDisposable> {
  const answer = {
    id_token: planted['ID token'],
    device_code: planted['device code'],
    token: planted['enroll token'],
  }
  const server = createServer((_request, response) => {
    response.writeHead(200, {
      'content-type': 'application/json; charset=utf-8',
      'set-cookie': `__Host-login=${planted.cookie}; Path=/`,
      location: `http://127.0.0.1:1/callback?state=1&code=${planted['authorization code']}`,
    })
    response.end(JSON.stringify(answer))
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  return {
    origin: `http://127.0.0.1:${port}`,
    async [Symbol.asyncDispose]() {
      server.close()
      server.closeAllConnections()
      await once(server, 'close')
    },
  }
}

interface TestProcess {
  run: string
  home: string
  edge: string
  planted: Record<string, string>
  origin: string
}

/** A process as node's test runner starts it: it asks the server, runs programs with state, and a program for each
 *  secret that says it. None of it knows that it is heard. */
async function runTestProcess({ run, home, edge, planted, origin }: TestProcess): Promise<void> {
  const script = path.join(makeTempFolder('script'), 'planted.test.mjs')
  writeFileSync(script, TEST_PROCESS)
  const url = new URL(pathToFileURL(RECORD.pathname))
  url.searchParams.set('folder', run)
  const plan = JSON.stringify({ home, edge, planted, origin })
  const { code, stderr } = await new Program(
    process.execPath,
    ['--conditions=postern-source', `--import=${url.href}`, script],
    { stdin: plan },
  ).ended
  assert.equal(code, 0, stderr)
}

const TEST_PROCESS = `
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import http from 'node:http'
import { text } from 'node:stream/consumers'

const { home, edge, planted, origin } = JSON.parse(readFileSync(0, 'utf8'))
const [answer] = await once(http.get(origin), 'response')
assert.ok(JSON.parse(await text(answer)).token, 'the test reads what was answered')
await once(spawn('true', [], { env: { POSTERN_HOME: home } }), 'close')
const edgeArgs = ['-c', ':', '/bin/postern-edge.js', 'serve', '--config', edge + '/edge.yaml']
await once(spawn('sh', edgeArgs), 'close')
let isStderr = false
for (const [kind, secret] of Object.entries(planted)) {
  isStderr = !isStderr
  const child = spawn('sh', ['-c', isStderr ? 'cat >&2' : 'cat', kind])
  child.stdin.write('said: ' + secret.slice(0, 9))
  setTimeout(() => child.stdin.end(secret.slice(9) + '\\n'), 10)
  const said = await text(isStderr ? child.stderr : child.stdout)
  assert.ok(said.includes(secret), 'the test reads what was said')
}
const silent = spawn('sh', ['-c', 'echo nothing of that kind', 'silent'])
assert.equal(await text(silent.stdout), 'nothing of that kind\\n')
`
