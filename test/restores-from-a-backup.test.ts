import assert from 'node:assert/strict'
import { existsSync, mkdirSync, readdirSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { after, before, describe, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { Program } from '../demo/program.ts'
import { connectService } from './support/connect-service.ts'
import { makePerson } from './support/dev-browser.ts'
import { type EdgeProcess, startEdge } from './support/edge-process.ts'
import { runPostern } from './support/postern.ts'
import { startEcho, type TcpService } from './support/tcp-services.ts'
import { makeTempFolder } from './support/temp-folder.ts'

/** docs/operations.md, "Backup and restore": an edge that is lost comes back from the folder that
 *  `postern-edge store backup` made while it ran, and nobody has to do anything. */

const POSTERN_EDGE = fileURLToPath(new URL('../packages/edge/bin/postern-edge.js', import.meta.url))

let edge: EdgeProcess
let echo: TcpService
let operator: string

before(async () => {
  edge = await startEdge()
  echo = await startEcho()
  operator = await makePerson(edge, 'operator@mycorp.com')
})
after(async () => {
  await echo?.[Symbol.asyncDispose]()
  await edge?.[Symbol.asyncDispose]()
})

const backUp = (configFile: string, to: string) =>
  new Program(process.execPath, [POSTERN_EDGE, 'store', 'backup', '--config', configFile, '--to', to], {
    stdin: '',
  }).ended

const reach = (home: string, host: string) =>
  runPostern(['client', 'tls', '--host', host], { home, stdin: 'hello' })

describe('postern-edge store backup', () => {
  test('of a running edge restores it elsewhere: sessions, services, connectors and the audit log go on', async () => {
    await using first = await startEdge({ keepsPort: true })
    const { port } = first
    const home = await makePerson(first, 'operator@mycorp.com')
    await using connector = await connectService({ home, port: echo.port })
    const before = await reach(home, connector.host)
    assert.equal(before.stdout, 'hello', before.stderr)

    const to = path.join(makeTempFolder('backup'), 'monday')
    const flows = Array.from({ length: 6 }, () => reach(home, connector.host))
    const backups = await Promise.all([backUp(first.configFile, to), ...flows])
    for (const { code, stderr } of backups) assert.equal(code, 0, stderr)

    await first.kill9()
    rmSync(first.dataDir, { recursive: true })
    const restored = path.join(makeTempFolder('restored'), 'data')
    renameSync(to, restored)
    await using second = await startEdge({ port, dataDir: restored })
    assert.equal(second.origin, first.origin)
    await connector.event('reconnected')

    const who = await runPostern(['whoami', '--batch', '--json'], { home })
    assert.equal(who.code, 0, who.stderr)
    const again = await reach(home, connector.host)
    assert.equal(again.stdout, 'hello', again.stderr)
    const audit = await runPostern(['audit', 'list', '--json', '--batch'], { home })
    const told = audit.stdout.match(/"flow\.decided"|"flow\.closed"/g) ?? []
    assert.ok(told.length >= 3, `the records of before the loss: ${audit.stdout.slice(0, 2_000)}`)
  })

  test('makes a folder that only its owner reads, with the keys and one sound file', async () => {
    const to = path.join(makeTempFolder('backup'), 'a/b')
    const { code, stderr } = await backUp(edge.configFile, to)
    assert.equal(code, 0, stderr)
    const files = readdirSync(to, { recursive: true, encoding: 'utf8' })
    for (const name of [
      'edge.sqlite',
      'login-keys.json',
      'ca/client-ca.key',
      'ca/edge-ca.key',
      'ca/ssh-user-ca.key',
      'audit',
    ])
      assert.ok(files.includes(name), name)
    assert.ok(!files.some((name) => /-wal$|-shm$|\.partial$/.test(name)), files.join())
    for (const name of ['', ...files])
      assert.equal(statSync(path.join(to, name)).mode & 0o077, 0, `${name} is open to others`)
    assert.equal((await runPostern(['whoami', '--batch'], { home: operator })).code, 0, 'the edge goes on')
  })

  test('works while the edge is stopped', async () => {
    const stopped = await startEdge()
    await stopped.stop()
    const to = path.join(makeTempFolder('backup'), 'stopped')
    assert.equal((await backUp(stopped.configFile, to)).code, 0)
    assert.ok(existsSync(path.join(to, 'edge.sqlite')))
  })

  test('overwrites nothing, and leaves nothing half-made', async () => {
    const folder = makeTempFolder('backup')
    mkdirSync(path.join(folder, 'there'))
    const refused = await backUp(edge.configFile, path.join(folder, 'there'))
    assert.equal(refused.code, 2)
    assert.match(refused.stderr, /is there already and is not overwritten/)

    const gone = await startEdge()
    await gone.stop()
    for (const name of readdirSync(gone.dataDir).filter((name) => name.startsWith('edge.sqlite')))
      rmSync(path.join(gone.dataDir, name))
    const missing = await backUp(gone.configFile, path.join(folder, 'missing'))
    assert.equal(missing.code, 1)
    assert.match(missing.stderr, /cannot copy the store/)

    writeFileSync(path.join(gone.dataDir, 'edge.sqlite'), 'this is not a database, and never was one')
    assert.equal((await backUp(gone.configFile, path.join(folder, 'broken'))).code, 1)
    assert.deepEqual(readdirSync(folder), ['there'])
  })
})
