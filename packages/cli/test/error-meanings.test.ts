import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { ERRORS } from '@postern/shared/errors'
import { MEANINGS } from '../src/explain/meanings.ts'
import { MEANINGS_FILE, renderMeanings } from './error-meanings.ts'

const plain = (text: string) => text.replaceAll(/\s+/g, ' ')

test('postern explain says what docs/errors.md says', () => {
  // the formatter breaks long lines
  assert.equal(plain(readFileSync(MEANINGS_FILE, 'utf8')), plain(renderMeanings()))
})

test('every code has a meaning and a next step', () => {
  for (const code of Object.keys(ERRORS) as (keyof typeof ERRORS)[]) {
    assert.match(MEANINGS[code].meaning, /^\S.{20,}/, code)
    assert.match(MEANINGS[code].next, /^\S.{5,}/, code)
  }
})
