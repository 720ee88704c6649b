import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { globSync, readFileSync, statSync } from 'node:fs'
import path from 'node:path'
import { describe, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { Program, type ProgramResult } from '../demo/program.ts'
import { connectService, spawnConnect } from './support/connect-service.ts'
import { makeDevBrowser, makePerson, tryLogIn } from './support/dev-browser.ts'
import { startEdge } from './support/edge-process.ts'
import { HeldFlow } from './support/held-flow.ts'
import { METRICS_ON, readMetrics } from './support/metrics.ts'
import { requestEdge } from './support/oauth-peer.ts'
import { runPostern } from './support/postern.ts'
import { mountSmallDisk, type SmallDisk } from './support/small-disk.ts'
import { startEcho } from './support/tcp-services.ts'
import { clientCertificateOf } from './support/tls-peer.ts'
import { until } from './support/until.ts'

/** A disk that is full, or mounted read-only: everybody says so and what to do, and leaves files whole: as they were,
 *  or as they should be. */

const POSTERN_EDGE = fileURLToPath(new URL('../packages/edge/bin/postern-edge.js', import.meta.url))
const KIB = 1_024
const NO_SPACE = /no space is left on its disk|its disk is full/
const READ_ONLY = /its disk is mounted read-only/

function runEdgeCommand(args: readonly string[]): Promise<ProgramResult> {
  return new Program(process.execPath, [POSTERN_EDGE, ...args], { stdin: '' }).ended
}

/** What a program says that cannot go on, whatever it was about to write. */
function assertClear({ code, stdout, stderr }: ProgramResult, reason: RegExp): void {
  assert.equal(code, 1, stderr)
  assert.match(stderr, reason)
  assert.match(stderr, /\n {2}\S+/, 'it says what to do')
  assert.doesNotMatch(stdout + stderr, /bug|\bat async|Error:/)
}

/** Files but for the ballast, with their content. */
function filesOf(folder: string): Map<string, string> {
  const names = globSync('**/*', { cwd: folder }).filter((name) => name !== 'ballast')
  const files = names.map((name) => path.join(folder, name)).filter((file) => statSync(file).isFile())
  return new Map(files.map((file) => [file, createHash('sha256').update(readFileSync(file)).digest('hex')]))
}

/** With no room at all, with some, until there is enough. @returns how often there was too little */
async function withMoreAndMore(disk: SmallDisk, step: (tell: string) => Promise<boolean>): Promise<number> {
  for (const [failures, pages] of [0, 1, 3, 6, 11, 30, 200].entries()) {
    disk.fill(pages * 4 * KIB)
    if (await step(`${pages} pages left`)) return failures
  }
  throw new Error('it never had enough room')
}

describe('postern-edge', () => {
  test('init leaves nothing behind on a disk that is full, or cannot be written', async () => {
    using disk = mountSmallDisk(1)
    const folder = path.join(disk.folder, 'edge')
    const args = ['init', '--config', `${folder}/edge.yaml`, '--domain', 'edge.localhost', '--dev-identity']
    const failures = await withMoreAndMore(disk, async (tell) => {
      const result = await runEdgeCommand(args)
      if (result.code === 0) return true
      assertClear(result, NO_SPACE)
      assert.deepEqual([...filesOf(disk.folder).keys()], [], tell)
      return false
    })
    assert.ok(failures >= 2, 'with room for the configuration, and not for the keys')
    disk.setReadOnly(true)
    const elsewhere = args.map((arg) => arg.replace(folder, `${disk.folder}/other`))
    assertClear(await runEdgeCommand(elsewhere), READ_ONLY)
  })

  test('serve does not start, and starts on the same keys once there is room', async () => {
    using disk = mountSmallDisk(2)
    const config = path.join(disk.folder, 'edge.yaml')
    const listen = ['--listen', '127.0.0.1:0']
    const init = ['init', '--config', config, '--domain', 'edge.localhost', '--dev-identity', ...listen]
    assert.equal((await runEdgeCommand(init)).code, 0)
    const keys = filesOf(path.join(disk.folder, 'data', 'ca'))
    const assertWhole = (tell: string) => {
      const now = filesOf(path.join(disk.folder, 'data', 'ca'))
      for (const [file, hash] of keys) assert.equal(now.get(file), hash, `${file}, ${tell}`)
      for (const [file] of now) assert.ok(statSync(file).size > 0, `${file} is empty, ${tell}`)
    }
    const failures = await withMoreAndMore(disk, async (tell) => {
      const edge = new Program(process.execPath, [POSTERN_EDGE, 'serve', '--config', config], { stdin: '' })
      const isReady = await Promise.race([
        edge.matches(/ready at/).then(() => true),
        edge.ended.then(() => false),
      ])
      assertWhole(tell)
      const result = await edge.stop()
      if (!isReady) assertClear(result, NO_SPACE)
      return isReady
    })
    assert.ok(failures >= 3, 'with room for the keys of ssh, and not for the tables')
    disk.setReadOnly(true)
    assertClear(await runEdgeCommand(['serve', '--config', config]), READ_ONLY)
    assertWhole('read-only')
  })

  test('store backup leaves no folder behind', async () => {
    await using edge = await startEdge()
    using disk = mountSmallDisk(2)
    const to = path.join(disk.folder, 'backup')
    const backUp = () => runEdgeCommand(['store', 'backup', '--config', edge.configFile, '--to', to])
    for (const leftBytes of [0, 12 * KIB, 100 * KIB]) {
      disk.fill(leftBytes)
      assertClear(await backUp(), NO_SPACE)
      assert.deepEqual(globSync('*', { cwd: disk.folder }), ['ballast'])
    }
    disk.makeRoom()
    assert.equal((await backUp()).code, 0)
    disk.setReadOnly(true)
    assertClear(
      await runEdgeCommand(['store', 'backup', '--config', edge.configFile, '--to', `${to}-2`]),
      READ_ONLY,
    )
  })
})

describe('an edge whose disk becomes full', () => {
  test('keeps the live flows, refuses what it cannot record, says so, and recovers by itself', async () => {
    using disk = mountSmallDisk(8)
    await using service = await startEcho()
    await using edge = await startEdge({
      dataDir: path.join(disk.folder, 'edge'),
      config: { metrics: METRICS_ON },
    })
    const home = await makePerson(edge, 'operator@mycorp.com')
    await using connector = await connectService({ home, port: service.port })
    const { host, label } = connector
    const enter = () => runPostern(['client', 'tls', '--host', host], { home, stdin: 'hello' })
    assert.equal((await enter()).stdout, 'hello')
    using held = new HeldFlow(edge, host, clientCertificateOf(home, label))
    await held.echo('before')
    const isReady = async () => (await requestEdge(edge, { path: '/readyz' })).status === 200
    const unrecorded = async () => (await readMetrics(edge)).get('postern_audit_failed_total') ?? 0
    assert.ok(await isReady())
    assert.equal(await unrecorded(), 0)

    disk.fill()
    const refused = await until('a flow is refused', async () => {
      const result = await enter() // there may be room left in the store's own files
      return result.code === 0 ? undefined : result
    })
    assert.equal(refused.code, 6, refused.stderr)
    assert.match(refused.stderr, /RECORD_FAILED/)
    assert.equal(refused.stdout, '')
    const served = service.connections.length
    assert.equal((await enter()).code, 6)
    assert.equal(service.connections.length, served, 'the service hears nothing of them')
    await held.echo('while it is full')
    await until('it is not ready', async () => !(await isReady()))
    assert.ok((await unrecorded()) >= 2)
    assert.ok(edge.program.isRunning)
    assert.match(edge.logs(), /RECORD_FAILED/)

    disk.makeRoom()
    await until('it is ready again', isReady)
    assert.equal((await enter()).stdout, 'hello')
    await held.echo('after')
    assert.equal(connector.events().filter(({ event }) => event === 'reconnected').length, 0)
    const { stdout } = await runPostern(['audit', 'list', '--json'], { home })
    assert.match(stdout, /"flow\.decided"/)
  })
})

describe('postern', () => {
  test('signs nobody in that it cannot remember, and keeps the session it has', async () => {
    await using edge = await startEdge({ config: { certificates: { session: '12h', ttl: '5m' } } })
    using disk = mountSmallDisk(1)
    const home = path.join(disk.folder, 'home')
    await makeDevBrowser(edge, home, 'operator@mycorp.com') // the script needs room too
    const failures = await withMoreAndMore(disk, async (tell) => {
      const result = await tryLogIn(edge, home, 'operator@mycorp.com').catch((error) => error as Error)
      if (result instanceof Error) throw result
      if (result.code === 0) return true
      assertClear(result, NO_SPACE)
      assert.match(result.stderr, /STATE_INVALID/)
      assertStateIsWhole(home, tell)
      return false
    })
    assert.ok(failures >= 1)
  })

  test('client tls and connect say that they cannot keep their certificate; what runs goes on', async () => {
    await using edge = await startEdge()
    await using service = await startEcho()
    using disk = mountSmallDisk(1)
    const home = path.join(disk.folder, 'home')
    const login = await tryLogIn(edge, home, 'operator@mycorp.com')
    assert.equal(login.code, 0, login.stderr)
    await using connector = await connectService({ home, port: service.port })
    const session = readFileSync(sessionFileOf(home))
    const enter = () => runPostern(['client', 'tls', '--host', connector.host], { home, stdin: 'hello' })
    const assertRefused = async (reason: RegExp) => {
      for (const result of [
        await enter(),
        await spawnConnect({ home, port: service.port, name: 'two' }).ended,
      ]) {
        assertClear(result, reason)
        assert.match(result.stderr + result.stdout, /STATE_INVALID/)
      }
      assertStateIsWhole(home, String(reason))
      assert.deepEqual(readFileSync(sessionFileOf(home)), session)
    }
    disk.fill()
    await assertRefused(NO_SPACE)
    const other = await makePerson(edge, 'person@mycorp.com') // on another disk
    const args = ['client', 'tls', '--host', connector.host]
    assert.equal((await runPostern(args, { home: other, stdin: 'hello' })).stdout, 'hello')
    disk.makeRoom()
    assert.equal((await enter()).stdout, 'hello')
    await connector.stop()
    disk.setReadOnly(true)
    assert.equal((await runPostern(['whoami'], { home })).code, 0, 'reading is enough')
    assertClear(await spawnConnect({ home, port: service.port, name: 'three' }).ended, READ_ONLY)
  })
})

function sessionFileOf(home: string): string {
  return globSync(path.join(home, 'edges', '*', 'session.json'))[0]!
}

/** Each file of postern's is JSON to its end; nothing else lies about. */
function assertStateIsWhole(home: string, tell: string): void {
  for (const file of filesOf(path.join(home, 'edges')).keys()) {
    if (file.endsWith('lock')) continue
    assert.match(file, /\.(json|pem)$/, tell)
    const text = readFileSync(file, 'utf8')
    if (file.endsWith('.json')) assert.doesNotThrow(() => JSON.parse(text), `${file}, ${tell}`)
  }
}
