import type { Kysely, Selectable } from 'kysely'
import type { Database, OidcRecordsTable } from './schema.ts'
import { hashSecret, seal, unseal } from './sealed.ts'

/** The rows behind oidc-provider's adapter. Ids come in plain and are hashed here; payloads are sealed under
 *  their id. A row that has expired is not found, whether it was purged or not. */

/** As the library gives it; `jti`, `uid`, `userCode` and `grantId` are its own members. */
export type OidcPayload = Record<string, unknown>

export interface OidcRecordKey {
  /** `AccessToken`, `Interaction`, … */
  model: string
  id: string
}

/** Models that a revoked grant takes along. Others name a grant too (an interaction does) but outlive it. */
const GRANTABLE: ReadonlySet<string> = new Set([
  'AccessToken',
  'AuthorizationCode',
  'RefreshToken',
  'DeviceCode',
  'BackchannelAuthenticationRequest',
])

/** Inserts or replaces; what was consumed stays consumed.
 *  @param expiresAt epoch milliseconds; undefined for what never expires */
export async function upsertOidcRecord(
  db: Kysely<Database>,
  key: OidcRecordKey,
  payload: OidcPayload,
  expiresAt: number | undefined,
): Promise<void> {
  const userCode = textOf(payload.userCode)
  const uid = key.model === 'Session' ? textOf(payload.uid) : undefined
  const values = {
    payload: seal(JSON.stringify(payload), key.id, key.model),
    grant_id: (GRANTABLE.has(key.model) && textOf(payload.grantId)) || null,
    user_code_hash: userCode === undefined ? null : hashSecret(userCode),
    uid_hash: uid === undefined ? null : hashSecret(uid),
    id_by_user_code: userCode === undefined ? null : seal(key.id, userCode, key.model),
    id_by_uid: uid === undefined ? null : seal(key.id, uid, key.model),
    expires_at: expiresAt ?? null,
  }
  await db
    .insertInto('oidc_records')
    .values({ model: key.model, id_hash: hashSecret(key.id), consumed_at: null, ...values })
    .onConflict((conflict) => conflict.columns(['model', 'id_hash']).doUpdateSet(values))
    .execute()
}

/** The payload, with `consumed` (epoch seconds) when it was consumed. */
export async function findOidcRecord(
  db: Kysely<Database>,
  key: OidcRecordKey,
  now: number,
): Promise<OidcPayload | undefined> {
  const row = await liveRecords(db, key.model, now)
    .where('id_hash', '=', hashSecret(key.id))
    .executeTakeFirst()
  return row && open(row, key.id)
}

export async function findOidcRecordByUserCode(
  db: Kysely<Database>,
  by: { model: string; userCode: string },
  now: number,
): Promise<OidcPayload | undefined> {
  const row = await liveRecords(db, by.model, now)
    .where('user_code_hash', '=', hashSecret(by.userCode))
    .executeTakeFirst()
  return row?.id_by_user_code ? open(row, unseal(row.id_by_user_code, by.userCode, by.model)) : undefined
}

export async function findOidcRecordByUid(
  db: Kysely<Database>,
  by: { model: string; uid: string },
  now: number,
): Promise<OidcPayload | undefined> {
  const row = await liveRecords(db, by.model, now)
    .where('uid_hash', '=', hashSecret(by.uid))
    .executeTakeFirst()
  return row?.id_by_uid ? open(row, unseal(row.id_by_uid, by.uid, by.model)) : undefined
}

/** @returns false when it is unknown or was consumed before: of two that race for a code, one wins */
export async function consumeOidcRecord(
  db: Kysely<Database>,
  key: OidcRecordKey,
  now: number,
): Promise<boolean> {
  const result = await db
    .updateTable('oidc_records')
    .set({ consumed_at: now })
    .where('model', '=', key.model)
    .where('id_hash', '=', hashSecret(key.id))
    .where('consumed_at', 'is', null)
    .executeTakeFirst()
  return result.numUpdatedRows > 0n
}

export async function destroyOidcRecord(db: Kysely<Database>, key: OidcRecordKey): Promise<void> {
  await db
    .deleteFrom('oidc_records')
    .where('model', '=', key.model)
    .where('id_hash', '=', hashSecret(key.id))
    .execute()
}

/** Deletes every token and code of the grant, of every model. The grant itself stays: destroy it by its id. */
export async function revokeOidcRecordsByGrant(db: Kysely<Database>, grantId: string): Promise<void> {
  await db.deleteFrom('oidc_records').where('grant_id', '=', grantId).execute()
}

function liveRecords(db: Kysely<Database>, model: string, now: number) {
  return db
    .selectFrom('oidc_records')
    .selectAll()
    .where('model', '=', model)
    .where((is) => is.or([is('expires_at', 'is', null), is('expires_at', '>', now)]))
}

function open(row: Selectable<OidcRecordsTable>, id: string): OidcPayload {
  const payload: OidcPayload = JSON.parse(unseal(row.payload, id, row.model))
  if (row.consumed_at === null) return payload
  return { ...payload, consumed: Math.floor(row.consumed_at / 1_000) }
}

function textOf(value: unknown): string | undefined {
  return typeof value === 'string' ? value : undefined
}
