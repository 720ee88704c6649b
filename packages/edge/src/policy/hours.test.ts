import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Hours } from '@postern/shared/policy'
import { endOf, isInside } from './hours.ts'

const OFFICE: Hours = {
  days: ['mon', 'tue', 'wed', 'thu', 'fri'],
  from: '08:00',
  to: '18:00',
  timeZone: 'Europe/Berlin',
}
const NIGHT: Hours = { days: ['fri'], from: '22:00', to: '06:00', timeZone: 'America/New_York' }
const SATURDAY: Hours = { days: ['sat'], from: '00:00', to: '24:00', timeZone: 'UTC' }
/** 2026-10-25, 03:00 in Berlin becomes 02:00. */
const LONG_NIGHT: Hours = { days: ['sat'], from: '22:00', to: '04:00', timeZone: 'Europe/Berlin' }
/** 2026-03-29, 02:00 in Berlin becomes 03:00. */
const ALL_DAY: Hours = { days: ['fri'], from: '12:00', to: '12:00', timeZone: 'Asia/Kathmandu' }

const rows: [string, Hours, string, string | undefined][] = [
  ['inside, summer time', OFFICE, '2026-07-01T10:00:30Z', '2026-07-01T16:00:00Z'],
  ['inside, winter time', OFFICE, '2026-12-01T10:00:00Z', '2026-12-01T17:00:00Z'],
  ['the first minute', OFFICE, '2026-07-01T06:00:00Z', '2026-07-01T16:00:00Z'],
  ['the minute before', OFFICE, '2026-07-01T05:59:59Z', undefined],
  ['the last second', OFFICE, '2026-07-01T15:59:59Z', '2026-07-01T16:00:00Z'],
  ['the end', OFFICE, '2026-07-01T16:00:00Z', undefined],
  ['a Sunday', OFFICE, '2026-07-05T10:00:00Z', undefined],
  ['over midnight, on its day', NIGHT, '2026-07-04T03:00:00Z', '2026-07-04T10:00:00Z'],
  ['over midnight, on the next day', NIGHT, '2026-07-04T09:59:00Z', '2026-07-04T10:00:00Z'],
  ['over midnight, a day late', NIGHT, '2026-07-05T03:00:00Z', undefined],
  ['over midnight, a day early', NIGHT, '2026-07-03T09:00:00Z', undefined],
  ['a whole day', SATURDAY, '2026-07-04T23:59:59Z', '2026-07-05T00:00:00Z'],
  ['the day after', SATURDAY, '2026-07-05T00:00:00Z', undefined],
  ['the clocks go back before it ends', LONG_NIGHT, '2026-10-24T22:00:00Z', '2026-10-25T03:00:00Z'],
  ['the clocks go forward before it ends', LONG_NIGHT, '2026-03-28T23:00:00Z', '2026-03-29T02:00:00Z'],
  ['24 hours from noon, 45 minutes off the hour', ALL_DAY, '2026-07-04T06:00:00Z', '2026-07-04T06:15:00Z'],
]

for (const [name, hours, now, end] of rows) {
  test(`hours: ${name}`, () => {
    assert.equal(isInside(hours, Date.parse(now)), end !== undefined)
    const found = endOf(hours, Date.parse(now))
    assert.equal(found && new Date(found).toISOString(), end && new Date(end).toISOString())
  })
}
