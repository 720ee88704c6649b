import assert from 'node:assert/strict'
import { test } from 'node:test'
import { formatDuration, formatExactDuration, parseDuration } from './duration.ts'

test('reads a number and a unit as milliseconds', () => {
  assert.equal(parseDuration('250ms'), 250)
  assert.equal(parseDuration('30s'), 30_000)
  assert.equal(parseDuration('5m'), 300_000)
  assert.equal(parseDuration('12h'), 43_200_000)
  assert.equal(parseDuration('7d'), 604_800_000)
  assert.equal(parseDuration('0s'), 0)
})

test('refuses what is not a duration', () => {
  for (const text of [
    '',
    '5',
    'm',
    '-5m',
    '1.5h',
    '5 m',
    '5M',
    '5m ',
    '5min',
    '1h30m',
    '1e3s',
    '9999999999s',
    '999999999d',
  ]) {
    assert.throws(() => parseDuration(text), { code: 'DURATION_INVALID' }, text)
  }
})

test('says the two largest units', () => {
  const cases: [number, string][] = [
    [0, '0 s'],
    [499, '0 s'],
    [4_000, '4 s'],
    [59_600, '1 min'],
    [7_500_000, '2 h 5 min'],
    [3_600_000, '1 h'],
    [90_061_000, '1 d 1 h'],
    [3_601_000, '1 h'],
    [-4_000, '4 s'],
  ]
  for (const [ms, text] of cases) assert.equal(formatDuration(ms), text)
})

test('writes durations that are read back to the same', () => {
  for (const text of ['0ms', '250ms', '90s', '5m', '8h', '7d', '36h', '1500ms']) {
    assert.equal(formatExactDuration(parseDuration(text)), text)
  }
})
