import type { EmailAddress } from '@postern/shared/email'
import type { Identity } from '@postern/shared/identity'
import type { Kysely, Selectable } from 'kysely'
import { tellEdges } from './changes.ts'
import { inTransactionToTell } from './in-transaction.ts'
import { newId } from './new-id.ts'
import type { Database, IdentitiesTable } from './schema.ts'
import { findNewestSession, type Session } from './sessions.ts'

/** What a provider said about a person, after all checks. */
export type VerifiedAccount = Omit<Identity, 'id'>

/** Keeps the person under (issuer, subject) and gives their immutable id. Email and groups follow the newest
 *  login: policy reads them, nothing is keyed by them. */
export async function upsertIdentity(
  db: Kysely<Database>,
  account: VerifiedAccount,
  now: number,
): Promise<Identity> {
  return inTransactionToTell(db, async (trx) => {
    const groups = JSON.stringify(account.groups)
    const row = await trx
      .insertInto('identities')
      .values({
        id: newId('idn'),
        issuer: account.issuer,
        subject: account.subject,
        email: account.email,
        groups,
        created_at: now,
        last_login_at: now,
      })
      .onConflict((conflict) =>
        conflict
          .columns(['issuer', 'subject'])
          .doUpdateSet({ email: account.email, groups, last_login_at: now }),
      )
      .returningAll()
      .executeTakeFirstOrThrow()
    await tellEdges(trx, { kind: 'identity', identityId: row.id })
    return toIdentity(row)
  })
}

export async function findIdentity(db: Kysely<Database>, id: string): Promise<Identity | undefined> {
  const row = await db.selectFrom('identities').selectAll().where('id', '=', id).executeTakeFirst()
  return row && toIdentity(row)
}

/** Of another issuer than this. */
export async function hasIdentities(db: Kysely<Database>, { except }: { except: string }): Promise<boolean> {
  const row = await db
    .selectFrom('identities')
    .select('id')
    .where('issuer', '!=', except)
    .limit(1)
    .executeTakeFirst()
  return row !== undefined
}

/** Whoever has this address now, at any provider. */
export async function listIdentitiesByEmail(db: Kysely<Database>, email: EmailAddress): Promise<Identity[]> {
  const rows = await db.selectFrom('identities').selectAll().where('email', '=', email).execute()
  return rows.map(toIdentity)
}

const IDS_PER_QUERY = 500

/** Those of them that are there, in no order. */
export async function listIdentities(db: Kysely<Database>, ids: readonly string[]): Promise<Identity[]> {
  const found: Identity[] = []
  for (let start = 0; start < ids.length; start += IDS_PER_QUERY) {
    const some = ids.slice(start, start + IDS_PER_QUERY)
    const rows = await db.selectFrom('identities').selectAll().where('id', 'in', some).execute()
    found.push(...rows.map(toIdentity))
  }
  return found
}

export interface LastLogin {
  identity: Identity
  session: Session
  /** Epoch milliseconds. */
  lastLoginAt: number
}

/** The newest login of whoever has this address, over all providers. */
export async function findLastLogin(
  db: Kysely<Database>,
  email: EmailAddress,
): Promise<LastLogin | undefined> {
  const row = await db
    .selectFrom('identities')
    .selectAll()
    .where('email', '=', email)
    .orderBy('last_login_at', 'desc')
    .limit(1)
    .executeTakeFirst()
  return row && (await withLastSession(db, [row]))[0]
}

/** People who signed in since then, the newest first, each with their last login. */
export async function listLastLogins(
  db: Kysely<Database>,
  { since, limit }: { since: number; limit: number },
): Promise<LastLogin[]> {
  const rows = await db
    .selectFrom('identities')
    .selectAll()
    .where('last_login_at', '>=', since)
    .orderBy('last_login_at', 'desc')
    .limit(limit)
    .execute()
  return withLastSession(db, rows)
}

async function withLastSession(
  db: Kysely<Database>,
  rows: readonly Selectable<IdentitiesTable>[],
): Promise<LastLogin[]> {
  const found: LastLogin[] = []
  for (const row of rows) {
    const session = await findNewestSession(db, row.id)
    if (session) found.push({ identity: toIdentity(row), session, lastLoginAt: row.last_login_at })
  }
  return found
}

function toIdentity(row: Selectable<IdentitiesTable>): Identity {
  return {
    id: row.id,
    issuer: row.issuer,
    subject: row.subject,
    email: row.email as EmailAddress,
    groups: JSON.parse(row.groups),
  }
}
