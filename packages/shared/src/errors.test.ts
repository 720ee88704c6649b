import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { describe, test } from 'node:test'
import {
  ERRORS,
  type ErrorCode,
  fromPublicError,
  isErrorCode,
  PosternError,
  toPosternError,
  toPublicError,
} from './errors.ts'

const CODES = Object.keys(ERRORS) as ErrorCode[]

/** The text below each `### CODE`. */
function readDocumentedErrors(): Map<string, string> {
  const text = readFileSync(new URL('../../../docs/errors.md', import.meta.url), 'utf8')
  const sections = text.split(/^### /m).slice(1)
  return new Map(sections.map((section) => [section.slice(0, section.indexOf('\n')), section]))
}

describe('docs/errors.md', () => {
  const documented = readDocumentedErrors()

  test('explains every code of the table, and no other', () => {
    assert.deepEqual([...documented.keys()].sort(), [...CODES].sort())
  })

  for (const code of CODES) {
    test(`is right about ${code}`, () => {
      const { exit, http, public: isPublic } = ERRORS[code]
      const section = documented.get(code) ?? ''
      assert.ok(section.includes(`*exit ${exit} · ${isPublic ? `HTTP ${http}` : 'stays on the edge'}*`))
      assert.match(section, /\*\*What to do:\*\* \S/)
    })
  }
})

test('hints are one line in lower case without a final period, and say something', () => {
  for (const code of CODES) {
    const { hint } = ERRORS[code]
    assert.match(hint, /^[a-z].{10,}[^.]$/, code)
  }
})

test('an error carries its hint, exit code, cause and details', () => {
  const cause = new Error('inner')
  const error = new PosternError('ACCESS_DENIED', 'no', { cause, details: { a: 1 } })
  assert.equal(error.hint, ERRORS.ACCESS_DENIED.hint)
  assert.equal(error.exitCode, 5)
  assert.equal(error.cause, cause)
  assert.deepEqual(error.details, { a: 1 })
  assert.equal(new PosternError('ACCESS_DENIED', 'no', { hint: 'other' }).hint, 'other')
})

test('only public errors leave the edge; the rest leave a request id', () => {
  const shown = new PosternError('SERVICE_OFFLINE', 'db is offline', {
    hint: 'wait',
    cause: 'secret',
    details: {},
  })
  assert.deepEqual(toPublicError(shown, 'r1'), {
    code: 'SERVICE_OFFLINE',
    message: 'db is offline',
    hint: 'wait',
  })
  for (const hidden of [
    new PosternError('CONFIG_INVALID', '/etc/secret'),
    new Error('10.0.0.1'),
    'text',
    null,
  ]) {
    assert.deepEqual(toPublicError(hidden, 'r1'), {
      code: 'INTERNAL',
      message: 'the edge failed, request id r1',
      hint: ERRORS.INTERNAL.hint,
    })
  }
})

test('reads errors off the wire, also of a later version', () => {
  const known = fromPublicError({ code: 'SERVICE_OFFLINE', message: 'off', hint: 'wait' }, 'INTERNAL')
  assert.deepEqual([known.code, known.message, known.hint], ['SERVICE_OFFLINE', 'off', 'wait'])
  const bare = fromPublicError({ code: 'SERVICE_OFFLINE', message: 'off' }, 'INTERNAL')
  assert.equal(bare.hint, ERRORS.SERVICE_OFFLINE.hint)
  const later = fromPublicError({ code: 'MOON_PHASE', message: 'wrong moon' }, 'INTERNAL')
  assert.deepEqual([later.code, later.message], ['INTERNAL', 'wrong moon (MOON_PHASE)'])
})

test('names of objects are not codes', () => {
  for (const value of ['toString', '__proto__', '', undefined, 1]) assert.equal(isErrorCode(value), false)
})

test('wraps what is foreign once', () => {
  const ours = new PosternError('BUSY', 'busy')
  assert.equal(toPosternError(ours, 'INTERNAL', 'x'), ours)
  const foreign = new Error('foreign')
  const wrapped = toPosternError(foreign, 'STATE_INVALID', 'broken')
  assert.deepEqual([wrapped.code, wrapped.message, wrapped.cause], ['STATE_INVALID', 'broken', foreign])
})
