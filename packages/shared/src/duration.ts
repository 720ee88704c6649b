import { PosternError } from './errors.ts'

const UNITS_MS: Readonly<Record<string, number>> = {
  ms: 1,
  s: 1_000,
  m: 60_000,
  h: 3_600_000,
  d: 86_400_000,
}

/** Reads `30s`, `5m`, `12h`, `7d`, `250ms` as milliseconds.
 *  @throws DURATION_INVALID */
export function parseDuration(text: string): number {
  const match = /^(\d{1,9})(ms|s|m|h|d)$/.exec(text)
  const ms = match ? Number(match[1]) * UNITS_MS[match[2]!]! : Number.NaN
  if (!Number.isSafeInteger(ms)) {
    throw new PosternError('DURATION_INVALID', `${JSON.stringify(text)} is not a duration`)
  }
  return ms
}

/** The two largest units, for people: `2 h 5 min`, `4 s`. */
export function formatDuration(ms: number): string {
  const seconds = Math.round(Math.abs(ms) / 1_000)
  const parts: [number, string][] = [
    [Math.floor(seconds / 86_400), 'd'],
    [Math.floor((seconds % 86_400) / 3_600), 'h'],
    [Math.floor((seconds % 3_600) / 60), 'min'],
    [seconds % 60, 's'],
  ]
  const first = parts.findIndex(([count]) => count > 0)
  if (first < 0) return '0 s'
  return parts
    .slice(first, first + 2)
    .filter(([count]) => count > 0)
    .map(([count, unit]) => `${count} ${unit}`)
    .join(' ')
}

/** The shortest text that `parseDuration` reads back to the same: `90s`, `8h`. */
export function formatExactDuration(ms: number): string {
  const [name, unit] = Object.entries(UNITS_MS).findLast(([, unit]) => ms >= unit && ms % unit === 0) ?? [
    'ms',
    1,
  ]
  return `${ms / unit}${name}`
}
