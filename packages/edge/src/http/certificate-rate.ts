import { PosternError } from '@postern/shared/errors'
import type { AuditEvent } from '../audit/event.ts'
import type { ApiParts } from './parts.ts'

type Asked = Omit<Extract<AuditEvent, { type: 'certificate.refused' }>, 'type' | 'code' | 'rule'>

/** Counts one certificate against its identity, TLS and SSH alike. One too many is recorded like any other refusal.
 *  @throws RATE_LIMITED */
export async function spendCertificate(
  asked: Asked & { identityId: string },
  { certificateRate, audit }: Pick<ApiParts, 'certificateRate' | 'audit'>,
): Promise<void> {
  try {
    await certificateRate.spend(asked.identityId)
  } catch (error) {
    if (error instanceof PosternError)
      await audit.record({
        type: 'certificate.refused',
        ...asked,
        code: error.code,
        rule: 'certificates per minute',
      })
    throw error
  }
}
