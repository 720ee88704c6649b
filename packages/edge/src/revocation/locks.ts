import { PosternError } from '@postern/shared/errors'
import type { Identity } from '@postern/shared/identity'
import type { Kysely } from 'kysely'
import { findLock } from '../store/locks.ts'
import type { Database } from '../store/schema.ts'

/** Sign-in, refresh, API, certificates and flows all ask here.
 *  @throws IDENTITY_LOCKED */
export async function refuseLocked(
  db: Kysely<Database>,
  identity: Pick<Identity, 'id' | 'email'>,
  now: number,
): Promise<void> {
  const lock = await findLock(db, identity, now)
  if (!lock) return
  const end = lock.until === undefined ? '' : ` until ${new Date(lock.until).toISOString()}`
  throw new PosternError('IDENTITY_LOCKED', `${identity.email} is locked at this edge${end}`, {
    details: { email: identity.email, error: 'invalid_token' },
  })
}

/** The same in an `error_description`, where the code must be in the text. */
export function describeLock({ code, message }: PosternError): string {
  return `${code}: ${message}`
}
