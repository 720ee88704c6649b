import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isMisspelling } from './misspelling.ts'

test('two slips are a misspelling, three are another word', () => {
  for (const typed of ['local', 'locall', 'lcal', 'lokal', 'loacl', 'lo']) {
    assert.equal(isMisspelling(typed, 'local'), typed !== 'lo', typed)
  }
  assert.equal(isMisspelling('host', 'local'), false)
})
