import assert from 'node:assert/strict'
import { test } from 'node:test'
import { printable } from './io.ts'

test('nothing from elsewhere reaches a terminal as a command', () => {
  assert.equal(printable('plain é 日本 🙂'), 'plain é 日本 🙂')
  assert.equal(printable('\u001b[2J\u0007\n\r\t\u009b'), '\\u001b[2J\\u0007\\u000a\\u000d\\u0009\\u009b')
  assert.equal(printable('a\u202egnp.exe\u2028'), 'a\\u202egnp.exe\\u2028')
})
