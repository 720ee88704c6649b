import type { ErrorCode } from '@postern/shared/errors'
import type { RecordLogin } from './sessions.ts'

/** Counts in the audit log what the sign-in has refused to somebody without a name. Never rejects: it is refused
 *  whether that can be written or not. */
export async function recordRefused(
  refused: { code: ErrorCode; clientAddress: string },
  record: RecordLogin,
): Promise<void> {
  try {
    await record({ type: 'request.refused', ...refused })
  } catch {
    // the edge has ended
  }
}
