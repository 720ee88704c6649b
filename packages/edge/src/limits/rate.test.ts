import assert from 'node:assert/strict'
import { it } from 'node:test'
import { PosternError } from '@postern/shared/errors'
import { openRate } from './rate.ts'

it('a rate stops whoever is over it, tells how long, and nobody else', async () => {
  const rate = openRate('certificates', 2)
  await rate.spend('one')
  await rate.spend('one')
  const error = await rate.spend('one').catch((caught: unknown) => caught)
  assert.ok(error instanceof PosternError)
  assert.equal(error.code, 'RATE_LIMITED')
  const seconds = Number(error.details?.retryAfterSeconds)
  assert.ok(seconds >= 1 && seconds <= 60, String(seconds))
  assert.ok(error.hint.includes(String(seconds)))
  await rate.spend('another')
})
