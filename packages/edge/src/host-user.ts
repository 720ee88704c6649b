import { userInfo } from 'node:os'
import type { EmailAddress } from '@postern/shared/email'
import type { Identity } from '@postern/shared/identity'
import type { Kysely } from 'kysely'
import { hasIdentities, upsertIdentity } from './store/identities.ts'
import type { Database } from './store/schema.ts'

/** Whoever does something on the edge's host, without a login: a user of its system. `host:root` stands where people have
 *  their address, in the audit log and as who has made a certificate. No address has this form, and nobody signs in as
 *  one. */
const PREFIX = 'host:'
/** Where people have the URL of their provider. */
const ISSUER = 'host'

export function isHostUser(name: string): name is EmailAddress {
  return name.startsWith(PREFIX)
}

/** Of this process. */
export function keepHostUser(db: Kysely<Database>, now: number): Promise<Identity> {
  const subject = readUserName()
  return upsertIdentity(
    db,
    { issuer: ISSUER, subject, email: `${PREFIX}${subject}` as EmailAddress, groups: [] },
    now,
  )
}

/** Whether anybody but users of the host was ever here. */
export function hasSignedIn(db: Kysely<Database>): Promise<boolean> {
  return hasIdentities(db, { except: ISSUER })
}

function readUserName(): string {
  try {
    return userInfo().username
  } catch {
    return String(process.geteuid?.() ?? 'unknown') // a container may know its user by number only
  }
}
