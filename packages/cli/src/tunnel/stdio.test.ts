import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { PosternError } from '@postern/shared/errors'
import { isReaderGone } from './stdio.ts'

const cutBy = (by: 'left' | 'right' | 'signal', code?: string) => {
  const cause = code === undefined ? undefined : Object.assign(new Error(code), { code })
  return { by, error: new PosternError('FLOW_CUT', 'lost', { cause }), downEnded: false }
}

describe('a reader that has gone', () => {
  it('is one that closed stdout', () => {
    assert.ok(isReaderGone(cutBy('left', 'EPIPE')))
  })

  it('is not an edge that went away while something was written to it: bytes are missing', () => {
    assert.ok(!isReaderGone(cutBy('right', 'EPIPE')))
    assert.ok(!isReaderGone(cutBy('signal', 'EPIPE')))
  })

  it('is not any other loss', () => {
    assert.ok(!isReaderGone(cutBy('left')))
    assert.ok(!isReaderGone(cutBy('left', 'EIO')))
  })
})
