import assert from 'node:assert/strict'
import { test } from 'node:test'
import { ErrorFrame, HelloFrame, OpenFrame, readFrameBody } from './control-frames.ts'

const OPEN = {
  flowId: 'f',
  serviceId: 's',
  identity: { id: 'i', email: 'a@b.com' },
  clientAddress: '[::1]:2',
}

test('reads a body and leaves out members of a later version', () => {
  assert.deepEqual(readFrameBody(OpenFrame, { ...OPEN, later: 1 }, 'open'), OPEN)
  assert.deepEqual(readFrameBody(ErrorFrame, { code: 'X' }, 'error'), { code: 'X' })
})

test('refuses missing members, other types and what is too long', () => {
  const bad: [typeof HelloFrame | typeof OpenFrame, unknown][] = [
    [HelloFrame, { version: 2, attachmentId: 'a' }],
    [HelloFrame, { version: 1, attachmentId: '' }],
    [HelloFrame, null],
    [OpenFrame, { ...OPEN, flowId: undefined }],
    [OpenFrame, { ...OPEN, flowId: 'f'.repeat(129) }],
    [OpenFrame, { ...OPEN, identity: 'root' }],
  ]
  for (const [schema, body] of bad) {
    assert.throws(
      () => readFrameBody(schema, body, 'open'),
      { code: 'PROTOCOL_INVALID' },
      JSON.stringify(body),
    )
  }
})
