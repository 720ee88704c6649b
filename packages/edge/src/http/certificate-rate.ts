import { PosternError } from '@postern/shared/errors'
import type { Context } from 'hono'
import type { AuditEvent } from '../audit/event.ts'
import type { ApiEnv, ApiParts } from './parts.ts'
import { recordOwnRefusal } from './record-refusal.ts'

type Asked = Omit<Extract<AuditEvent, { type: 'certificate.refused' }>, 'type' | 'code' | 'rule'>

/** Counts one certificate against its identity, TLS and SSH alike. One too many is recorded like any other refusal.
 *  @throws RATE_LIMITED */
export async function spendCertificate(
  c: Context<ApiEnv>,
  asked: Asked & { identityId: string },
  { certificateRate, audit }: Pick<ApiParts, 'certificateRate' | 'audit'>,
): Promise<void> {
  try {
    await certificateRate.spend(asked.identityId)
  } catch (error) {
    if (error instanceof PosternError) {
      const { code } = error
      const rule = 'certificates per minute'
      await recordOwnRefusal(c, { type: 'certificate.refused', ...asked, code, rule }, audit)
    }
    throw error
  }
}
