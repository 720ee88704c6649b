import { formatDuration } from '@postern/shared/duration'

/** @param clockOffsetMs what has to be added to this machine's clock to get the edge's */
export function describeClock(clockOffsetMs: number): string {
  const side = clockOffsetMs > 0 ? 'behind' : 'ahead of'
  return `this machine's clock is ${formatDuration(clockOffsetMs)} ${side} the edge's`
}
