import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { after, test } from 'node:test'
import { takeLock, tryLock } from './lock.ts'

const folder = mkdtempSync(path.join(tmpdir(), 'postern-lock-'))
after(() => rmSync(folder, { recursive: true }))

test('one holder at a time, within a process too', async () => {
  const file = path.join(folder, 'one', 'lock')
  const first = tryLock(file)
  assert.ok(first)
  assert.equal(statSync(file).mode & 0o777, 0o600)
  assert.equal(tryLock(file), undefined)
  let waited = 0
  await assert.rejects(takeLock(file, { timeoutMs: 30, onWait: () => waited++ }), { code: 'BUSY' })
  assert.equal(waited, 1)
  first[Symbol.dispose]()
  using again = await takeLock(file, { timeoutMs: 30 })
  assert.ok(again)
})

test('a holder that is killed lets go', async () => {
  const file = path.join(folder, 'two', 'lock')
  const source = `
    import { tryLock } from ${JSON.stringify(new URL('./lock.ts', import.meta.url).href)}
    globalThis.lock = tryLock(${JSON.stringify(file)})
    console.log('held')
    setInterval(() => lock, 1000)`
  const args = ['--conditions=postern-source', '--input-type=module', '-e', source]
  const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit'] })
  await once(child.stdout!, 'data')
  assert.equal(tryLock(file), undefined)
  child.kill('SIGKILL')
  await once(child, 'exit')
  using lock = tryLock(file)
  assert.ok(lock)
})
