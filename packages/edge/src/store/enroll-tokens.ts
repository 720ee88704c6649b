import type { Kysely, Selectable } from 'kysely'
import { insertCertificate, type NewCertificate } from './certificates.ts'
import { inTransaction } from './in-transaction.ts'
import { newId } from './new-id.ts'
import type { Database, EnrollTokensTable } from './schema.ts'
import { hashSecret } from './sealed.ts'
import { takeTurn } from './take-turns.ts'

/** A token with which one server becomes a connector of one service; the token itself is not kept. */
export interface EnrollToken {
  id: string
  serviceId: string
  /** The identity that made it: the service's owner or an admin. */
  createdBy: string
  /** Id of the process that will use it: fixed from the beginning, so that an answer that is given again is the
   *  same connector. */
  connectorId: string
  createdAt: number
  expiresAt: number
  usedAt: number | undefined
  /** SHA-256 of the public key that used it. */
  keyHash: string | undefined
}

export interface NewEnrollToken {
  token: string
  serviceId: string
  createdBy: string
  expiresAt: number
}

/** @param maxOpen of one service
 *  @returns undefined when the service has as many open ones already, or is gone */
export async function createEnrollToken(
  db: Kysely<Database>,
  { token, serviceId, createdBy, expiresAt }: NewEnrollToken,
  { now, maxOpen }: { now: number; maxOpen: number },
): Promise<EnrollToken | undefined> {
  return inTransaction(db, async (trx) => {
    await takeTurn(trx, `enroll:${serviceId}`)
    const service = await trx
      .selectFrom('services')
      .select('id')
      .where('id', '=', serviceId)
      .where('deleted_at', 'is', null)
      .executeTakeFirst()
    if (!service || (await countOpenEnrollTokens(trx, serviceId, now)) >= maxOpen) return undefined
    const row = await trx
      .insertInto('enroll_tokens')
      .values({
        token_hash: hashSecret(token),
        id: newId('enr'),
        service_id: serviceId,
        created_by: createdBy,
        connector_id: newId('con'),
        created_at: now,
        expires_at: expiresAt,
        used_at: null,
        key_hash: null,
      })
      .returningAll()
      .executeTakeFirstOrThrow()
    return toEnrollToken(row)
  })
}

/** Used and expired ones too, as long as they are kept. */
export async function findEnrollToken(db: Kysely<Database>, token: string): Promise<EnrollToken | undefined> {
  const row = await db
    .selectFrom('enroll_tokens')
    .selectAll()
    .where('token_hash', '=', hashSecret(token))
    .executeTakeFirst()
  return row && toEnrollToken(row)
}

export async function countOpenEnrollTokens(
  db: Kysely<Database>,
  serviceId: string,
  now: number,
): Promise<number> {
  const { open } = await db
    .selectFrom('enroll_tokens')
    .select((select) => select.fn.countAll().as('open'))
    .where('service_id', '=', serviceId)
    .where('used_at', 'is', null)
    .where('expires_at', '>', now)
    .executeTakeFirstOrThrow()
  return Number(open)
}

/** Uses the token up and writes the certificate, both or neither. The key that used it may do so again until
 *  `answerableUntil` after its use: its answer was lost. Of two keys at once exactly one wins.
 *  @returns how: the first time, again, or not at all: then nothing is written */
export async function useEnrollToken(
  db: Kysely<Database>,
  tokenId: string,
  certificate: NewCertificate,
  { now, answerableMs }: { now: number; answerableMs: number },
): Promise<'first' | 'again' | 'refused'> {
  return inTransaction(db, async (trx) => {
    const used = await trx
      .updateTable('enroll_tokens')
      .set({ used_at: now, key_hash: certificate.keyHash })
      .where('id', '=', tokenId)
      .where('used_at', 'is', null)
      .where('expires_at', '>', now)
      .executeTakeFirst()
    const isFirst = used.numUpdatedRows > 0n
    if (!isFirst) {
      const answerable = await trx
        .selectFrom('enroll_tokens')
        .select('id')
        .where('id', '=', tokenId)
        .where('key_hash', '=', certificate.keyHash)
        .where('used_at', '>', now - answerableMs)
        .executeTakeFirst()
      if (!answerable || (await isLineageTouched(trx, certificate.connectorId!))) return 'refused'
    }
    await insertCertificate(trx, certificate)
    return isFirst ? 'first' : 'again'
  })
}

/** Whoever has renewed has got an answer, and a lineage that was revoked stays so. */
async function isLineageTouched(db: Kysely<Database>, connectorId: string): Promise<boolean> {
  const touched = await db
    .selectFrom('certificates')
    .select('serial')
    .where('connector_id', '=', connectorId)
    .where((where) => where.or([where('revoked_at', 'is not', null), where('renewed_by', 'is not', null)]))
    .executeTakeFirst()
  return touched !== undefined
}

/** @returns how many could have been used still */
export async function cancelEnrollTokens(
  db: Kysely<Database>,
  serviceId: string,
  now: number,
): Promise<number> {
  const result = await db
    .deleteFrom('enroll_tokens')
    .where('service_id', '=', serviceId)
    .where('used_at', 'is', null)
    .where('expires_at', '>', now)
    .executeTakeFirst()
  return Number(result.numDeletedRows)
}

function toEnrollToken(row: Selectable<EnrollTokensTable>): EnrollToken {
  return {
    id: row.id,
    serviceId: row.service_id,
    createdBy: row.created_by,
    connectorId: row.connector_id,
    createdAt: row.created_at,
    expiresAt: row.expires_at,
    usedAt: row.used_at ?? undefined,
    keyHash: row.key_hash ?? undefined,
  }
}
