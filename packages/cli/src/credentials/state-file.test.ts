import assert from 'node:assert/strict'
import { mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { after, test } from 'node:test'
import { readStateFile, writeStateFile } from './state-file.ts'

const folder = mkdtempSync(path.join(tmpdir(), 'postern-state-'))
after(() => rmSync(folder, { recursive: true }))
const SHAPE = { name: 'string', at: 'number', extra: 'string?' } as const

test('what is written comes back, for its owner only, and leaves nothing beside it', () => {
  const file = path.join(folder, 'deep', 'state.json')
  writeStateFile(file, { name: 'x', at: 1 })
  writeStateFile(file, { name: 'y', at: 2 })
  assert.deepEqual(readStateFile(file, SHAPE), { name: 'y', at: 2 })
  assert.equal(statSync(file).mode & 0o777, 0o600)
  assert.equal(statSync(path.dirname(file)).mode & 0o777, 0o700)
  assert.deepEqual(readdirSync(path.dirname(file)), ['state.json'])
})

test('no file is undefined; a wrong one is refused by name', () => {
  const file = path.join(folder, 'bad.json')
  assert.equal(readStateFile(file, SHAPE), undefined)
  for (const text of [
    '',
    '{',
    'null',
    '[]',
    '"x"',
    '{"name":"x"}',
    '{"name":1,"at":1}',
    '{"name":"x","at":1,"extra":2}',
  ]) {
    writeFileSync(file, text)
    assert.throws(
      () => readStateFile(file, SHAPE),
      (error: Error & { code: string }) => error.code === 'STATE_INVALID' && error.message.includes(file),
      text,
    )
  }
})

test('a folder that cannot be written is said so', () => {
  const file = path.join(folder, 'a-file')
  writeFileSync(file, '')
  assert.throws(() => writeStateFile(path.join(file, 'b.json'), {}), { code: 'STATE_INVALID' })
})
