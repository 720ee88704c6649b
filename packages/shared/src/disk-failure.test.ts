import assert from 'node:assert/strict'
import { test } from 'node:test'
import { describeDiskFailure } from './disk-failure.ts'

const failure = (members: object) => Object.assign(new Error('failed'), members)

test('says what is wrong with a disk, whoever noticed it', () => {
  assert.match(describeDiskFailure(failure({ code: 'ENOSPC' }))!.reason, /no space/)
  assert.match(describeDiskFailure(failure({ code: 'EDQUOT' }))!.reason, /quota/)
  assert.match(describeDiskFailure(failure({ code: 'EROFS' }))!.reason, /read-only/)
  assert.match(describeDiskFailure(failure({ code: 'EACCES' }))!.reason, /may not write/)
  assert.match(describeDiskFailure(failure({ code: 'ERR_SQLITE_ERROR', errcode: 13 }))!.reason, /no space/)
  assert.match(describeDiskFailure(failure({ code: 'ERR_SQLITE_ERROR', errcode: 8 }))!.reason, /read-only/)
  // SQLITE_IOERR_WRITE
  assert.match(
    describeDiskFailure(failure({ code: 'ERR_SQLITE_ERROR', errcode: 778 }))!.reason,
    /full, or answers with errors/,
  )
})

test('says nothing of what is not the disk', () => {
  for (const members of [{}, { code: 'ENOENT' }, { code: 'ERR_SQLITE_ERROR', errcode: 5 }]) {
    assert.equal(describeDiskFailure(failure(members)), undefined)
  }
  assert.equal(describeDiskFailure('ENOSPC'), undefined)
})
