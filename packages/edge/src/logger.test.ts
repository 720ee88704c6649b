import assert from 'node:assert/strict'
import { it } from 'node:test'
import { PosternError } from '@postern/shared/errors'
import { createLogger, type LogLevel } from './logger.ts'

function capture(level?: LogLevel) {
  const lines: string[] = []
  return { log: createLogger({ write: (text) => void lines.push(text) }, level), lines }
}

it('writes one JSON object per line with time, level, event and fields', () => {
  const { log, lines } = capture()
  log.info('connector.attached', { connectorId: 'con_1' })
  log.debug('unseen')
  assert.equal(lines.length, 1)
  const { time, ...rest } = JSON.parse(lines[0]!)
  assert.deepEqual(rest, { level: 'info', event: 'connector.attached', connectorId: 'con_1' })
  assert.ok(Date.parse(time) > 0)
})

it('writes an error with its code and causes', () => {
  const { log, lines } = capture()
  const cause = new PosternError('RECORD_FAILED', 'the audit log cannot be written', {
    cause: new Error('disk full'),
  })
  log.error('flow.failed', { error: new Error('outer', { cause }) })
  const { error } = JSON.parse(lines[0]!)
  assert.equal(error.message, 'outer')
  assert.equal(error.cause.code, 'RECORD_FAILED')
  assert.equal(error.cause.cause.message, 'disk full')
})

it('hides what looks like a secret', () => {
  const { log, lines } = capture('debug')
  log.debug('http.request', {
    headers: { authorization: 'DPoP hunter2', cookie: 'hunter2' },
    token: 'hunter2',
  })
  assert.doesNotMatch(lines[0]!, /hunter2/)
})
