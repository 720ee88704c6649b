import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isMisspelling, suggest } from './misspelling.ts'

test('two slips are a misspelling, three are another word', () => {
  for (const typed of ['local', 'locall', 'lcal', 'lokal', 'loacl', 'lo']) {
    assert.equal(isMisspelling(typed, 'local'), typed !== 'lo', typed)
  }
  assert.equal(isMisspelling('host', 'local'), false)
  assert.equal(suggest('wrd', ['word', 'ward', 'other']), ', did you mean word or ward?')
  assert.equal(suggest('else', ['word', 'ward']), '')
})
