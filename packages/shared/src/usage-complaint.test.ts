import assert from 'node:assert/strict'
import { test } from 'node:test'
import { explainComplaint } from './usage-complaint.ts'

test('a complaint becomes an error with its suggestion as the next step', () => {
  const { code, message, hint, exitCode } = explainComplaint(
    "error: unknown command 'logn'\n(Did you mean login?)",
  )
  assert.deepEqual(
    [code, message, hint, exitCode],
    ['USAGE_INVALID', "unknown command 'logn'", 'did you mean login?', 2],
  )
})

test('without a suggestion the next step is the help', () => {
  const { message, hint } = explainComplaint("error: unknown option '--nope'")
  assert.equal(message, "unknown option '--nope'")
  assert.match(hint, /--help/)
})
