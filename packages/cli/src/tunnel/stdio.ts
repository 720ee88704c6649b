import { RawEnd } from '@postern/shared/stream/raw-end'
import type { Traffic } from '@postern/shared/stream/splice'

/** stdin and stdout as one end of a flow. Nothing but the service's bytes ever goes to stdout. */
export function openStdio(): RawEnd {
  // There is no reset for a pipe: the exit code says that bytes may be missing.
  return new RawEnd(process.stdin, process.stdout, () => process.stdin.destroy())
}

/** A reader of stdout that left (`| head -1`): not a failure of ours, and nobody is left to tell. Writing to an edge
 *  that has gone gives the same code, and is one. */
export function isReaderGone({ by, error }: NonNullable<Traffic['cut']>): boolean {
  return by === 'left' && (error.cause as { code?: string } | undefined)?.code === 'EPIPE'
}

/** Waits for bytes that stdout has not taken yet. */
export function flushStdout(timeoutMs: number): Promise<void> {
  const { stdout } = process
  if (stdout.writableLength === 0 || stdout.destroyed) return Promise.resolve()
  return new Promise((resolve) => {
    setTimeout(resolve, timeoutMs).unref()
    stdout.write('', () => resolve())
  })
}
