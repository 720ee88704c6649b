import type { Kysely, Selectable } from 'kysely'
import type { Database, ServerCertificatesTable } from './schema.ts'

/** A certificate of a private service, for whoever connects to it. Times in epoch milliseconds; serial and key hash in
 *  lower-case hex. */
export interface ServerCertificateRecord {
  serial: string
  keyHash: string
  /** DNS names and IP addresses. */
  names: readonly string[]
  /** Who made it. */
  identityId: string
  notBefore: number
  notAfter: number
  issuedAt: number
  revokedAt: number | undefined
}

export async function insertServerCertificate(
  db: Kysely<Database>,
  certificate: Omit<ServerCertificateRecord, 'revokedAt'>,
): Promise<void> {
  await db
    .insertInto('server_certificates')
    .values({
      serial: certificate.serial,
      key_hash: certificate.keyHash,
      names: JSON.stringify(certificate.names),
      identity_id: certificate.identityId,
      not_before: certificate.notBefore,
      not_after: certificate.notAfter,
      issued_at: certificate.issuedAt,
      revoked_at: null,
      revoked_reason: null,
    })
    .execute()
}

/** @param serial lower-case hex */
export async function findServerCertificate(
  db: Kysely<Database>,
  serial: string,
): Promise<ServerCertificateRecord | undefined> {
  const row = await db
    .selectFrom('server_certificates')
    .selectAll()
    .where('serial', '=', serial)
    .executeTakeFirst()
  return row && toRecord(row)
}

/** @returns how many were not revoked before */
export async function revokeServerCertificate(
  db: Kysely<Database>,
  serial: string,
  { reason, now }: { reason: string; now: number },
): Promise<number> {
  const result = await db
    .updateTable('server_certificates')
    .set({ revoked_at: now, revoked_reason: reason })
    .where('serial', '=', serial)
    .where('revoked_at', 'is', null)
    .executeTakeFirst()
  return Number(result.numUpdatedRows)
}

/** As `listRevokedSerials` of the other kinds. */
export async function listRevokedServerSerials(
  db: Kysely<Database>,
  endsAfter: number,
): Promise<{ serial: string; revokedAt: number; reason: string | undefined }[]> {
  const rows = await db
    .selectFrom('server_certificates')
    .select(['serial', 'revoked_at', 'revoked_reason'])
    .where('not_after', '>', endsAfter)
    .where('revoked_at', 'is not', null)
    .orderBy('serial')
    .execute()
  return rows.map((row) => ({
    serial: row.serial,
    revokedAt: row.revoked_at!,
    reason: row.revoked_reason ?? undefined,
  }))
}

/** Newest first, each with who made it. */
export async function listServerCertificates(
  db: Kysely<Database>,
  { endsAfter, limit }: { endsAfter: number; limit: number },
): Promise<(ServerCertificateRecord & { email: string })[]> {
  const rows = await db
    .selectFrom('server_certificates')
    .innerJoin('identities', 'identities.id', 'server_certificates.identity_id')
    .selectAll('server_certificates')
    .select('identities.email')
    .where('not_after', '>', endsAfter)
    .orderBy('issued_at', 'desc')
    .orderBy('serial')
    .limit(limit)
    .execute()
  return rows.map((row) => ({ ...toRecord(row), email: row.email }))
}

function toRecord(row: Selectable<ServerCertificatesTable>): ServerCertificateRecord {
  return {
    serial: row.serial,
    keyHash: row.key_hash,
    names: JSON.parse(row.names),
    identityId: row.identity_id,
    notBefore: row.not_before,
    notAfter: row.not_after,
    issuedAt: row.issued_at,
    revokedAt: row.revoked_at ?? undefined,
  }
}
