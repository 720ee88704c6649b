import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Backoff } from './backoff.ts'

test('grows by half from the first wait to the longest', () => {
  const backoff = new Backoff(1_000, 4_000, () => 1)
  const waits = Array.from({ length: 6 }, () => backoff.next())
  assert.deepEqual(waits, [1_000, 1_500, 2_250, 3_375, 4_000, 4_000])
})

test('starts again after a success', () => {
  const backoff = new Backoff(1_000, 4_000, () => 1)
  backoff.next()
  backoff.next()
  backoff.reset()
  assert.equal(backoff.next(), 1_000)
})

test('draws every wait between three tenths and the whole, so that a fleet spreads', () => {
  assert.equal(new Backoff(1_000, 4_000, () => 0).next(), 300)
  assert.equal(new Backoff(1_000, 4_000, () => 0.5).next(), 650)
})
