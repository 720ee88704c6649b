import { once } from 'node:events'
import type { Logger } from '@postern/shared/logger'
import type { EdgeConfig } from '../config/config.ts'
import type { RunningEdge } from '../edge.ts'

/** What people paste to sign in for the first time. */
export function loginLine({ origin, caFingerprint }: Pick<RunningEdge, 'origin' | 'caFingerprint'>): string {
  const pin = caFingerprint === undefined ? '' : ` --ca-fingerprint ${caFingerprint}`
  return `postern login --edge ${origin}${pin}`
}

/** Runs an edge until `stop` is aborted, then drains it.
 *  @param parts.drainMs how long live flows may go on
 *  @returns the exit code: 0 when every flow finished by itself, 1 when the deadline ended some */
export async function runEdge(
  config: EdgeConfig,
  parts: { log: Logger; stop: AbortSignal; drainMs: number; onReady: (edge: RunningEdge) => void },
): Promise<number> {
  const { startEdge } = await import('../edge.ts') // half a second of modules that --help does not need
  const edge = await startEdge(config, { log: parts.log })
  parts.onReady(edge)
  if (!parts.stop.aborted) await once(parts.stop, 'abort')
  const { drained } = await edge.close({ deadlineMs: parts.drainMs })
  return drained ? 0 : 1
}
