import type { EmailAddress } from '@postern/shared/email'
import type { Identity } from '@postern/shared/identity'
import type { Kysely, Selectable } from 'kysely'
import { tellEdges } from './changes.ts'
import { listIdentitiesByEmail } from './identities.ts'
import { inTransaction } from './in-transaction.ts'
import type { Database, LocksTable } from './schema.ts'

/** Somebody who is refused everywhere. Times in epoch milliseconds. */
export interface Lock {
  email: EmailAddress
  /** Ends by itself then; undefined: when somebody ends it. */
  until: number | undefined
  /** For administrators, never for the person. */
  reason: string
  lockedAt: number
  /** Identity id. */
  lockedBy: string
}

/** Locks an address and everybody who has it now: whoever gets another address at their provider stays locked, and
 *  so does whoever comes with this one for the first time. In place of an earlier lock.
 *  @returns the people who have it */
export async function lockAddress(db: Kysely<Database>, lock: Lock): Promise<Identity[]> {
  return inTransaction(db, async (trx) => {
    const people = await listIdentitiesByEmail(trx, lock.email)
    await trx.deleteFrom('locks').where('email', '=', lock.email).execute()
    for (const key of [lock.email, ...people.map(({ id }) => id)]) {
      const row = {
        email: lock.email,
        until: lock.until ?? null,
        reason: lock.reason,
        locked_at: lock.lockedAt,
        locked_by: lock.lockedBy,
      }
      await trx
        .insertInto('locks')
        .values({ key, ...row })
        .onConflict((conflict) => conflict.column('key').doUpdateSet(row))
        .execute()
    }
    for (const person of people) await tellEdges(trx, { kind: 'person_locked', identityId: person.id })
    return people
  })
}

/** @returns whether there was one */
export async function unlockAddress(db: Kysely<Database>, email: EmailAddress): Promise<boolean> {
  const result = await db.deleteFrom('locks').where('email', '=', email).executeTakeFirst()
  return result.numDeletedRows > 0n
}

/** The lock that holds for a person now, of several the one that lasts longest. */
export async function findLock(
  db: Kysely<Database>,
  { id, email }: Pick<Identity, 'id' | 'email'>,
  now: number,
): Promise<Lock | undefined> {
  const rows = await db.selectFrom('locks').selectAll().where('key', 'in', [id, email]).execute()
  const [longest] = rows.map(toLock).filter(isOn(now)).sort(byEnd)
  return longest
}

export async function listLocks(db: Kysely<Database>, now: number): Promise<Lock[]> {
  // the row of the address itself
  const rows = await db
    .selectFrom('locks')
    .selectAll()
    .whereRef('key', '=', 'email')
    .orderBy('email')
    .execute()
  return rows.map(toLock).filter(isOn(now))
}

function isOn(now: number): (lock: Lock) => boolean {
  return ({ until }) => until === undefined || until > now
}

function byEnd(a: Lock, b: Lock): number {
  if (a.until === b.until) return 0
  return (b.until ?? Number.POSITIVE_INFINITY) - (a.until ?? Number.POSITIVE_INFINITY)
}

function toLock(row: Selectable<LocksTable>): Lock {
  return {
    email: row.email as EmailAddress,
    until: row.until ?? undefined,
    reason: row.reason,
    lockedAt: row.locked_at,
    lockedBy: row.locked_by,
  }
}
