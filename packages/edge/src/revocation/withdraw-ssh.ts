import type { Kysely } from 'kysely'
import { contextOf } from '../policy/context.ts'
import { decide } from '../policy/decide.ts'
import { findIdentity } from '../store/identities.ts'
import type { Database } from '../store/schema.ts'
import { findServiceById } from '../store/services.ts'
import { findSession } from '../store/sessions.ts'
import {
  listLiveSshCertificates,
  revokeSshCertificates,
  type SshCertificateRecord,
} from '../store/ssh-certificates.ts'

/** Revokes the ssh certificates that would not be issued any more, of one service, of one person, or all: what a change does to live flows it does to them.
 *  Asked anew for each, with the address and the login that it was issued to. */
export async function withdrawSsh(
  db: Kysely<Database>,
  changed: { serviceId?: string; identityId?: string },
  now: number,
): Promise<void> {
  for (const certificate of await listLiveSshCertificates(db, changed, now)) {
    if (await isStillAdmitted(db, certificate, now)) continue
    await revokeSshCertificates(db, { serial: certificate.serial }, { reason: 'not admitted', now })
  }
}

async function isStillAdmitted(
  db: Kysely<Database>,
  { identityId, serviceId, sessionId, clientAddress, keyId }: SshCertificateRecord,
  now: number,
): Promise<boolean> {
  const identity = await findIdentity(db, identityId)
  const service = await findServiceById(db, serviceId)
  const session = await findSession(db, sessionId ?? '')
  if (!identity || !service || !session || identity.email !== keyId) return false
  return (await decide(db, identity, service, contextOf(session, clientAddress), now)).allowed
}
