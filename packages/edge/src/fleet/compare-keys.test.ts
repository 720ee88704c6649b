import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { compareKeys } from './compare-keys.ts'

const NOW = 1_000
const key = (name: string, signsFrom = 0, trustedUntil: number | null = null) => ({
  name,
  signsFrom,
  trustedUntil,
})
const OLD = [key('old')]
/** The old one goes: the new one signs from 2000 on, and the old one is believed until 3000. */
const ROTATED = [key('old', 0, 3_000), key('new', 2_000)]

function firstDifference(mine: typeof OLD, theirs: typeof OLD, now = NOW): number | undefined {
  const [there, back] = [
    compareKeys({ client: mine }, { client: theirs }, now),
    compareKeys({ client: theirs }, { client: mine }, now),
  ]
  assert.deepEqual(there, back, 'both say the same')
  return there[0]?.from
}

describe('compareKeys', () => {
  it('finds the same keys the same, at any time of a rotation', () => {
    for (const now of [0, 1_999, 2_000, 2_999, 3_000, 9_000]) {
      assert.equal(firstDifference(OLD, OLD, now), undefined)
      assert.equal(firstDifference(ROTATED, ROTATED, now), undefined)
    }
  })

  it('finds another key at once', () => {
    assert.equal(firstDifference(OLD, [key('another')]), NOW)
    assert.equal(firstDifference(ROTATED, [key('another', 0, 3_000), key('new', 2_000)]), NOW)
  })

  it('misses a new key from the moment on in which it signs', () => {
    assert.equal(firstDifference(OLD, ROTATED), 2_000)
    assert.equal(firstDifference(OLD, ROTATED, 1_999), 2_000)
    assert.equal(firstDifference(OLD, ROTATED, 2_500), 2_500)
  })

  it('knows when dates are not the same', () => {
    assert.equal(firstDifference(ROTATED, [key('old', 0, 3_000), key('new', 2_500)]), 2_000)
    assert.equal(firstDifference(ROTATED, [key('old', 0, 4_000), key('new', 2_000)]), 3_000)
  })

  it('finds one that still believes what the other has ended', () => {
    assert.equal(firstDifference([key('old', 0, 2_100), key('new', 2_000)], ROTATED, 2_200), 2_200)
  })

  it('does not ask about what nobody believes any more', () => {
    assert.equal(firstDifference([key('older', 0, 500), ...OLD], OLD), undefined)
    assert.equal(firstDifference(ROTATED, [key('new', 2_000)], 3_000), undefined)
  })

  it('takes several CAs below one root as what people trust: one key', () => {
    assert.equal(firstDifference([key('root', 0, 1_000), key('root', 1_000)], [key('root')]), undefined)
  })

  it('names each kind, and leaves out what only one of the two knows', () => {
    const mine = { client: OLD, connector: OLD, workload: ROTATED, newer: OLD }
    const theirs = { client: [key('x')], connector: OLD, workload: OLD, older: OLD }
    assert.deepEqual(compareKeys(mine, theirs, NOW), [
      { kind: 'client', from: NOW },
      { kind: 'workload', from: 2_000 },
    ])
  })
})
