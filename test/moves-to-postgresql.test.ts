import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import path from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { Program, type ProgramResult } from '../demo/program.ts'
import { newDatabase } from '../packages/edge/test/postgres.ts'
import { connectService } from './support/connect-service.ts'
import { makePerson } from './support/dev-browser.ts'
import { startEdge } from './support/edge-process.ts'
import { runPostern } from './support/postern.ts'
import { startEcho } from './support/tcp-services.ts'
import { makeTempFolder } from './support/temp-folder.ts'

/** An installation that has outgrown SQLite, moved as docs/operations.md says. */

const POSTERN_EDGE = fileURLToPath(new URL('../packages/edge/bin/postern-edge.js', import.meta.url))

function runEdgeCommand(...args: string[]): Promise<ProgramResult> {
  return new Program(process.execPath, [POSTERN_EDGE, ...args], { stdin: '' }).ended
}

test('store copy takes everything along: nobody signs in again, and the audit log is one', async () => {
  await using echo = await startEcho()
  await using first = await startEdge({ keepsPort: true, config: { store: 'sqlite:edge.sqlite' } })
  const { port, dataDir, configFile } = first
  const admin = await makePerson(first, 'operator@mycorp.com')
  const ann = await makePerson(first, 'ann@mycorp.com')
  await using connector = await connectService({ home: admin, port: echo.port })
  const reach = () =>
    runPostern(['client', 'tls', '--host', connector.host, '--batch'], { home: ann, stdin: 'hello' })
  assert.equal((await reach()).stdout, 'hello')
  const key = await runEdgeCommand('audit', 'key', '--config', configFile)
  assert.equal(key.code, 0, key.stderr)
  await first.stop()

  const store = await newDatabase()
  const copy = ['store', 'copy', '--from', `sqlite:${path.join(dataDir, 'edge.sqlite')}`, '--to', store]
  const copied = await runEdgeCommand(...copy)
  assert.equal(copied.code, 0, copied.stderr)
  const again = await runEdgeCommand(...copy)
  assert.notEqual(again.code, 0)
  assert.match(again.stderr, /is not empty/)

  await using _second = await startEdge({ port, dataDir, config: { store } })
  await connector.event('reconnected')
  const reached = await reach()
  assert.equal(reached.stdout, 'hello', reached.stderr)
  assert.equal((await runPostern(['logout'], { home: ann })).code, 0)
  assert.equal((await reach()).code, 4)

  const { code, stdout, stderr } = await runPostern(['audit', 'export'], { home: admin })
  assert.equal(code, 0, stderr)
  const decisions = stdout.split('\n').filter((line) => line.includes('flow.decided'))
  assert.equal(decisions.length, 2, 'from before and from after')
  const folder = makeTempFolder('export')
  const [log, keyFile] = [path.join(folder, 'audit.jsonl'), path.join(folder, 'key.txt')]
  writeFileSync(log, stdout)
  writeFileSync(keyFile, key.stdout)
  const verified = await runPostern(['audit', 'verify', log, '--key', keyFile, '--json'], { home: folder })
  assert.equal(verified.code, 0, verified.stderr)
  assert.equal(JSON.parse(verified.stdout).chains.length, 1, 'it goes on behind the copied records')
})
