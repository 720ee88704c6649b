import type { Kysely, Selectable } from 'kysely'
import type { VerifiedAccount } from './identities.ts'
import type { Database, UpstreamLoginsTable } from './schema.ts'
import { hashSecret, seal, unseal } from './sealed.ts'

/** Logins on their way through the upstream provider. Each step works once, before `expiresAt`, and only with
 *  the cookie of the browser that began: create → take by state → store account → take account. State and cookie
 *  come in plain and are hashed here. */

export interface UpstreamLogin {
  interactionUid: string
  codeVerifier: string
  nonce: string
  expiresAt: number
}

const CONTEXT = 'upstream-login'

/** @param keys `state` goes through the provider, `cookie` stays in the browser; both unguessable */
export async function createUpstreamLogin(
  db: Kysely<Database>,
  keys: { state: string; cookie: string },
  login: UpstreamLogin,
  now: number,
): Promise<void> {
  const { expiresAt, ...secrets } = login
  await db
    .insertInto('upstream_logins')
    .values({
      state_hash: hashSecret(keys.state),
      cookie_hash: hashSecret(keys.cookie),
      secrets: seal(JSON.stringify(secrets), keys.cookie, CONTEXT),
      taken_at: null,
      account: null,
      created_at: now,
      expires_at: expiresAt,
    })
    .execute()
}

/** The callback: gives the login to the browser that began it, once. */
export async function takeUpstreamLogin(
  db: Kysely<Database>,
  keys: { state: string; cookie: string },
  now: number,
): Promise<UpstreamLogin | undefined> {
  const row = await db
    .updateTable('upstream_logins')
    .set({ taken_at: now })
    .where('state_hash', '=', hashSecret(keys.state))
    .where('cookie_hash', '=', hashSecret(keys.cookie))
    .where('taken_at', 'is', null)
    .where('expires_at', '>', now)
    .returningAll()
    .executeTakeFirst()
  return row && openLogin(row, keys.cookie)
}

/** Parks the verified account for the person's own POST.
 *  @returns false when the login is unknown, was not taken, has an account already or has expired */
export async function storeVerifiedAccount(
  db: Kysely<Database>,
  cookie: string,
  account: VerifiedAccount,
  now: number,
): Promise<boolean> {
  const result = await db
    .updateTable('upstream_logins')
    .set({ account: seal(JSON.stringify(account), cookie, CONTEXT) })
    .where('cookie_hash', '=', hashSecret(cookie))
    .where('taken_at', 'is not', null)
    .where('account', 'is', null)
    .where('expires_at', '>', now)
    .executeTakeFirst()
  return result.numUpdatedRows > 0n
}

/** What the confirmation page shows; leaves it where it is. */
export async function findVerifiedAccount(
  db: Kysely<Database>,
  cookie: string,
  now: number,
): Promise<{ login: UpstreamLogin; account: VerifiedAccount } | undefined> {
  const row = await db
    .selectFrom('upstream_logins')
    .selectAll()
    .where('cookie_hash', '=', hashSecret(cookie))
    .where('account', 'is not', null)
    .where('expires_at', '>', now)
    .executeTakeFirst()
  return row && openAccount(row, cookie)
}

/** The POST: gives the account once and forgets the login. */
export async function takeVerifiedAccount(
  db: Kysely<Database>,
  cookie: string,
  now: number,
): Promise<{ login: UpstreamLogin; account: VerifiedAccount } | undefined> {
  const row = await db
    .deleteFrom('upstream_logins')
    .where('cookie_hash', '=', hashSecret(cookie))
    .where('account', 'is not', null)
    .where('expires_at', '>', now)
    .returningAll()
    .executeTakeFirst()
  return row && openAccount(row, cookie)
}

/** The person said no, or the provider did. */
export async function dropUpstreamLogin(db: Kysely<Database>, cookie: string): Promise<void> {
  await db.deleteFrom('upstream_logins').where('cookie_hash', '=', hashSecret(cookie)).execute()
}

function openLogin(row: Selectable<UpstreamLoginsTable>, cookie: string): UpstreamLogin {
  return { ...JSON.parse(unseal(row.secrets, cookie, CONTEXT)), expiresAt: row.expires_at }
}

function openAccount(row: Selectable<UpstreamLoginsTable>, cookie: string) {
  const account: VerifiedAccount = JSON.parse(unseal(row.account!, cookie, CONTEXT))
  return { login: openLogin(row, cookie), account }
}
