import { type Hours, WEEKDAYS, type Weekday } from '@postern/shared/policy'

const DAY_MINUTES = 24 * 60

/** Whether `now` is inside the window, by the wall clock of its time zone. */
export function isInside(hours: Hours, now: number): boolean {
  return minutesLeft(hours, now) !== undefined
}

/** When the window that `now` is in ends, in epoch milliseconds; undefined outside of it. A window ends by the wall
 *  clock: on the night the clocks change it is an hour longer or shorter. */
export function endOf(hours: Hours, now: number): number | undefined {
  const left = minutesLeft(hours, now)
  if (left === undefined) return undefined
  const wholeMinute = now - (now % 60_000)
  const end = wholeMinute + left * 60_000
  return end - (offsetMs(hours.timeZone, end) - offsetMs(hours.timeZone, wholeMinute))
}

/** Wall-clock minutes from the minute `now` is in to the end of the window. */
function minutesLeft({ days, from, to, timeZone }: Hours, now: number): number | undefined {
  const { day, minute } = wallClock(timeZone, now)
  const [start, end] = [parseMinute(from), parseMinute(to)]
  const length = end > start ? end - start : end - start + DAY_MINUTES
  for (const [startedOn, since] of [
    [day, minute - start],
    [dayBefore(day), minute - start + DAY_MINUTES],
  ] as const) {
    if (days.includes(startedOn) && since >= 0 && since < length) return length - since
  }
  return undefined
}

/** `08:30` as minutes since midnight. */
export function parseMinute(text: string): number {
  const [hour = 0, minute = 0] = text.split(':').map(Number)
  return hour * 60 + minute
}

function dayBefore(day: Weekday): Weekday {
  return WEEKDAYS[(WEEKDAYS.indexOf(day) + 6) % 7]!
}

const formats = new Map<string, Intl.DateTimeFormat>()

function wallClock(timeZone: string, now: number): { day: Weekday; minute: number } {
  const parts = readParts(timeZone, now)
  return {
    day: parts.weekday!.toLowerCase() as Weekday,
    minute: Number(parts.hour) * 60 + Number(parts.minute),
  }
}

function offsetMs(timeZone: string, at: number): number {
  const { year, month, day, hour, minute } = readParts(timeZone, at)
  const wall = Date.UTC(Number(year), Number(month) - 1, Number(day), Number(hour), Number(minute))
  return wall - (at - (at % 60_000))
}

function readParts(timeZone: string, at: number): Partial<Record<Intl.DateTimeFormatPartTypes, string>> {
  let format = formats.get(timeZone)
  if (!format) {
    format = new Intl.DateTimeFormat('en-US', {
      timeZone,
      hourCycle: 'h23',
      weekday: 'short',
      year: 'numeric',
      month: 'numeric',
      day: 'numeric',
      hour: 'numeric',
      minute: 'numeric',
    })
    formats.set(timeZone, format) // only time zones that Intl knows come here: their number is small
  }
  return Object.fromEntries(format.formatToParts(at).map(({ type, value }) => [type, value]))
}
