import assert from 'node:assert/strict'
import { globSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { after, before, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import type { Metafile } from 'esbuild'
import { bundleProgram, type ProgramName } from '../build.ts'
import type { PrivateSshd } from '../demo/private-sshd.ts'
import { startEdgeOnAnswerWire } from './support/answer-wire.ts'
import { type ConnectedService, connectService } from './support/connect-service.ts'
import { makePerson } from './support/dev-browser.ts'
import { type EdgeProcess, startEdge } from './support/edge-process.ts'
import { startListener } from './support/listen.ts'
import { runPostern } from './support/postern.ts'
import { acceptHostKey, makeSshMachine, startCertifiedSshd } from './support/sshd.ts'
import { startEcho, type TcpService } from './support/tcp-services.ts'
import { makeTempFolder } from './support/temp-folder.ts'

/** What decides how fast the programs start, counted instead of timed: files and bytes that are loaded, packages among
 *  them, modules of Node, connections and round trips. Numbers are those of today and a little more: whoever exceeds one
 *  makes every `ssh` of everybody slower, and changes it here on purpose. */

const CLI = fileURLToPath(new URL('../packages/cli/', import.meta.url))
const RECORDER = new URL('./support/record-loads.ts', import.meta.url)
const KIB = 1024

let edge: EdgeProcess
let echo: TcpService
let sshd: PrivateSshd & { principalsFile: string }
let home: string
let service: ConnectedService
let build: Metafile

before(async () => {
  // the same files as in dist, and the list of what went into each
  build = await buildAgain('cli')
  edge = await startEdge()
  echo = await startEcho()
  sshd = await startCertifiedSshd(path.join(edge.dataDir, 'ca', 'ssh-user-ca.pub'))
  home = await makePerson(edge, 'operator@mycorp.com')
  service = await connectService({ home, port: echo.port })
})
after(async () => {
  await service?.[Symbol.asyncDispose]()
  await sshd?.[Symbol.asyncDispose]()
  await echo?.[Symbol.asyncDispose]()
  await edge?.[Symbol.asyncDispose]()
})

function buildAgain(name: ProgramName): Promise<Metafile> {
  return bundleProgram(name, { outdir: path.join(makeTempFolder('build'), 'dist') })
}

interface Loaded {
  files: string[]
  bytes: number
  /** npm packages with code in these files. */
  packages: string[]
  /** Modules of Node itself, once the program has ended. */
  node: string[]
}

/** Where a program is to note what it loads, and how it is told to. */
function recordLoads(): { env: NodeJS.ProcessEnv; read: () => Loaded } {
  const record = path.join(makeTempFolder('loads'), 'loads')
  const lines = () => readFileSync(record, 'utf8').trim().split('\n')
  return {
    env: { NODE_OPTIONS: `--import=${RECORDER.href}`, POSTERN_TEST_LOADS: record },
    read: () => describeLoads(lines()),
  }
}

function describeLoads(urls: readonly string[]): Loaded {
  const files = urls.filter((url) => url.startsWith('file:')).map((url) => fileURLToPath(url))
  const outputs = Object.entries(build.outputs)
  const bundled = files.filter((file) => file !== path.join(CLI, 'bin', 'postern.js'))
  const packages = bundled.flatMap((file) => {
    const output = outputs.find(([name]) => path.basename(name) === path.basename(file))
    assert.ok(output, `${file} is not of this source: npm run build`)
    return Object.entries(output[1].inputs).flatMap(([input, { bytesInOutput }]) =>
      bytesInOutput > 0 ? (/node_modules\/((?:@[^/]+\/)?[^/]+)/.exec(input)?.[1] ?? []) : [],
    )
  })
  return {
    files: files.map((file) => path.relative(CLI, file).replace(/-[A-Z0-9]{8}\.js$/, '.js')),
    bytes: files.reduce((sum, file) => sum + statSync(file).size, 0),
    packages: [...new Set(packages)].sort(),
    node: urls.filter((url) => url.startsWith('node:')),
  }
}

/** Runs a command to its end. */
async function loadsOf(
  args: readonly string[],
  options: { home: string; env?: NodeJS.ProcessEnv; stdin?: string },
): Promise<Loaded> {
  const loads = recordLoads()
  const result = await runPostern(args, { ...options, env: { ...options.env, ...loads.env } })
  assert.equal(result.code, 0, result.stderr)
  return loads.read()
}

const tlsTo = (host: string) => ['client', 'tls', '--host', host]

async function say(text: string, { home, host }: { home: string; host: string }): Promise<void> {
  const result = await runPostern(tlsTo(host), { home, stdin: text })
  assert.equal(result.code, 0, result.stderr)
  assert.equal(result.stdout, text)
}

function runOutCertificate(home: string): void {
  const [file] = globSync(path.join(home, 'edges', '*', 'certificates', '*.json'))
  writeFileSync(file!, JSON.stringify({ ...JSON.parse(readFileSync(file!, 'utf8')), notAfter: Date.now() }))
}

/** The launcher, `main.js`, the chunk of the start, and the one with the bundler's own few lines. */
const START_FILES = ['bin/postern.js', 'dist/main.js', 'dist/chunks/chunk.js', 'dist/chunks/chunk.js']
/** What an import of `node:fs` would load although nobody uses it (the build takes modules of Node in another way),
 *  what `performance.now()` loads, and what belongs to HTTPS. */
const NOT_AT_START =
  /^node:(internal\/fs\/(promises|streams)|internal\/crypto\/webcrypto|perf_hooks|https?|worker_threads|child_process|sqlite)$/

function assertStart(loaded: Loaded): void {
  assert.deepEqual(loaded.files, START_FILES)
  assert.deepEqual(loaded.packages, [])
  // 76 KiB today; they are parsed at every start
  assert.ok(loaded.bytes <= 80 * KIB, `${loaded.bytes} bytes`)
  assert.ok(loaded.node.length > 0)
  assert.deepEqual(
    loaded.node.filter((name) => NOT_AT_START.test(name)),
    [],
  )
}

test('client tls with a live certificate loads four files, no package and little of Node', async (t) => {
  await say('x', { home, host: service.host })
  const loaded = await loadsOf(tlsTo(service.host), { home, stdin: 'x' })
  t.diagnostic(`${loaded.bytes} bytes, ${loaded.node.length} modules of Node`)
  assertStart(loaded)
})

test('client tls with a certificate that has run out loads one more chunk, and no package but valibot', async (t) => {
  await say('x', { home, host: service.host })
  runOutCertificate(home)
  const loaded = await loadsOf(tlsTo(service.host), { home, stdin: 'x' })
  t.diagnostic(`${loaded.bytes} bytes, ${loaded.node.length} modules of Node`)
  // a name to import by, and the chunk
  assert.deepEqual(loaded.files, [...START_FILES, 'dist/chunks/issue.js', 'dist/chunks/chunk.js'])
  assert.deepEqual(loaded.packages, ['valibot'])
  // 121 KiB today
  assert.ok(loaded.bytes <= 128 * KIB, `${loaded.bytes} bytes`)
})

test('client ssh-keysign with a live key loads what client tls does', async () => {
  const machine = makeSshMachine(await makePerson(edge, 'ann@mycorp.com'))
  await using ssh = await connectService({ home, port: sshd.port, name: 'ssh' })
  acceptHostKey(machine, ssh.host, sshd)
  const keysign = ['client', 'ssh-keysign', '--host', ssh.host]
  assert.equal((await runPostern(keysign, machine)).code, 0)
  assertStart(await loadsOf(keysign, machine))
})

test('client listen loads the command line, and nothing of sign-in, connectors or policies', async (t) => {
  const loads = recordLoads()
  {
    await using _listener = await startListener({ home, host: service.host, env: loads.env })
  }
  const loaded = loads.read()
  t.diagnostic(`${loaded.bytes} bytes in ${loaded.files.length} files`)
  // not openid-client, ws, yaml, open
  assert.deepEqual(loaded.packages, ['commander', 'valibot'])
  // 405 KiB in 28 files today: all options of all commands, for the help
  assert.ok(loaded.bytes <= 415 * KIB, `${loaded.bytes} bytes`)
  assert.ok(loaded.files.length <= 34, `${loaded.files.length} files`)
})

test('the programs are no larger than they were', async (t) => {
  const sizeOf = ({ outputs }: Metafile) =>
    Object.entries(outputs).reduce((sum, [file, { bytes }]) => sum + (file.endsWith('.js') ? bytes : 0), 0)
  const sizes = { cli: sizeOf(build), edge: sizeOf(await buildAgain('edge')) }
  t.diagnostic(`postern ${sizes.cli} bytes, postern-edge ${sizes.edge} bytes`)
  // 820 and 4,324 KiB today, 820 of them what the threads use of it once more: a package that comes in by accident is
  // larger than the difference
  assert.ok(sizes.cli <= 850 * KIB, `${sizes.cli} bytes`)
  assert.ok(sizes.edge <= 4_400 * KIB, `${sizes.edge} bytes`)
})

test('a client and its edge talk once: nobody waits for an answer before the first bytes', async () => {
  await using wire = await startEdgeOnAnswerWire()
  const person = await makePerson(wire.edge, 'operator@mycorp.com')
  await using echoed = await connectService({ home: person, port: echo.port })
  const there = { home: person, host: echoed.host }
  await say('a certificate', there)

  // after the handshake nothing comes back to the client before all its bytes are on the way, nor to the edge before
  // the connector has all of them
  const question = 'x'.repeat(64 * KIB)
  wire.keepAnswersBack(question.length)
  const before = { ...wire.made }
  await say(question, there)
  // one connection, and no question to the API
  assert.equal(wire.made.client - before.client, 1)
  assert.equal(wire.made.https - before.https, 0)

  // with a certificate that has run out the API is asked on one connection
  runOutCertificate(person)
  await say(question, there)
  assert.equal(wire.made.client - before.client, 2)
  assert.equal(wire.made.https - before.https, 1)
})
