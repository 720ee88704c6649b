import type { Kysely, Selectable } from 'kysely'
import type { WrittenTogether } from './audit-events.ts'
import { inTransaction } from './in-transaction.ts'
import type { Database, SshCertificatesTable } from './schema.ts'

/** An ssh certificate as it was issued, and what became of it. Times in epoch milliseconds. */
export interface SshCertificateRecord {
  serial: bigint
  kind: 'user' | 'host'
  /** `SHA256:…` of the key. */
  fingerprint: string
  keyId: string
  principals: readonly string[]
  identityId: string
  /** Users only. */
  sessionId: string | undefined
  serviceId: string
  /** Where it was asked for. */
  clientAddress: string
  /** Hosts only: the process that asked. */
  connectorId: string | undefined
  notBefore: number
  notAfter: number
  issuedAt: number
  revokedAt: number | undefined
  revokedReason: string | undefined
}

export type NewSshCertificate = Omit<SshCertificateRecord, 'revokedAt' | 'revokedReason'>

export interface Revocation {
  reason: string
  now: number
}

/** The row of one, to be written together with its record. */
export function sshCertificateRow(certificate: NewSshCertificate): WrittenTogether<'ssh_certificates'> {
  return {
    table: 'ssh_certificates',
    row: {
      serial: toHex(certificate.serial),
      kind: certificate.kind,
      fingerprint: certificate.fingerprint,
      key_id: certificate.keyId,
      principals: JSON.stringify(certificate.principals),
      identity_id: certificate.identityId,
      session_id: certificate.sessionId ?? null,
      service_id: certificate.serviceId,
      client_address: certificate.clientAddress,
      connector_id: certificate.connectorId ?? null,
      not_before: certificate.notBefore,
      not_after: certificate.notAfter,
      issued_at: certificate.issuedAt,
      revoked_at: null,
      revoked_reason: null,
    },
  }
}

export async function insertSshCertificate(
  db: Kysely<Database>,
  certificate: NewSshCertificate,
): Promise<void> {
  await db.insertInto('ssh_certificates').values(sshCertificateRow(certificate).row).execute()
}

export async function findSshCertificate(
  db: Kysely<Database>,
  serial: bigint,
): Promise<SshCertificateRecord | undefined> {
  const row = await db
    .selectFrom('ssh_certificates')
    .selectAll()
    .where('serial', '=', toHex(serial))
    .executeTakeFirst()
  return row && toRecord(row)
}

/** Which certificates: members that are left out do not matter. */
export interface SshCertificateFilter {
  serial?: bigint
  identityId?: string
  sessionId?: string
  serviceId?: string
  connectorId?: string
  kind?: 'user' | 'host'
}

/** Revokes what is still valid and raises the version of the list when that changes it.
 *  @returns how many were not revoked before */
export async function revokeSshCertificates(
  db: Kysely<Database>,
  filter: SshCertificateFilter,
  { reason, now }: Revocation,
): Promise<number> {
  return inTransaction(db, async (trx) => {
    let query = trx
      .updateTable('ssh_certificates')
      .set({ revoked_at: now, revoked_reason: reason })
      .where('revoked_at', 'is', null)
      .where('not_after', '>', now)
    for (const [column, value] of columnsOf(filter)) query = query.where(column, '=', value)
    const revoked = Number((await query.executeTakeFirst()).numUpdatedRows)
    if (revoked > 0) await raiseKrlVersion(trx, now)
    return revoked
  })
}

/** User certificates that are still valid, for one service or of one person. */
export async function listLiveSshCertificates(
  db: Kysely<Database>,
  filter: Pick<SshCertificateFilter, 'identityId' | 'serviceId'>,
  now: number,
): Promise<SshCertificateRecord[]> {
  let query = db
    .selectFrom('ssh_certificates')
    .selectAll()
    .where('kind', '=', 'user')
    .where('revoked_at', 'is', null)
    .where('not_after', '>', now)
  for (const [column, value] of columnsOf(filter)) query = query.where(column, '=', value)
  return (await query.execute()).map(toRecord)
}

/** Everything with this key id counts as revoked until then, also certificates that are not in the store. */
export async function revokeSshKeyId(
  db: Kysely<Database>,
  keyId: string,
  { until, now }: { until: number; now: number },
): Promise<void> {
  await inTransaction(db, async (trx) => {
    await trx
      .insertInto('ssh_revoked_key_ids')
      .values({ key_id: keyId, until })
      .onConflict((conflict) => conflict.column('key_id').doUpdateSet({ until }))
      .execute()
    await raiseKrlVersion(trx, now)
  })
}

export interface RevokedForSsh {
  /** Grows with every revocation; 0 before the first. Never goes back, not even when a backup is restored: it is at
   *  least the time of the last revocation in epoch milliseconds. */
  version: number
  /** Ascending. */
  serials: bigint[]
  keyIds: string[]
}

/** User certificates that servers must not believe although they have not expired.
 *  @param keptAfterMs how long after its end a certificate stays listed, for clocks that are behind */
export async function readRevokedForSsh(
  db: Kysely<Database>,
  now: number,
  keptAfterMs: number,
): Promise<RevokedForSsh> {
  // the version first: a list may have more than it says, never less
  const version = await readKrlVersion(db)
  const rows = await db
    .selectFrom('ssh_certificates')
    .select('serial')
    .where('kind', '=', 'user')
    .where('revoked_at', 'is not', null)
    .where('not_after', '>', now - keptAfterMs)
    .execute()
  const keyIds = await db
    .selectFrom('ssh_revoked_key_ids')
    .select('key_id')
    .where('until', '>', now)
    .execute()
  return {
    version,
    serials: rows.map((row) => fromHex(row.serial)).sort((a, b) => (a < b ? -1 : 1)),
    keyIds: keyIds.map((row) => row.key_id).sort(),
  }
}

export async function readKrlVersion(db: Kysely<Database>): Promise<number> {
  const row = await db.selectFrom('ssh_krl').select('version').executeTakeFirst()
  return row?.version ?? 0
}

/** One row: two that revoke at once wait for each other here. */
async function raiseKrlVersion(db: Kysely<Database>, now: number): Promise<void> {
  await db
    .insertInto('ssh_krl')
    .values({ id: 'krl', version: now })
    .onConflict((conflict) =>
      conflict.column('id').doUpdateSet((row) => ({
        version: row
          .case()
          .when('ssh_krl.version', '<', now)
          .then(now)
          .else(row('ssh_krl.version', '+', 1))
          .end(),
      })),
    )
    .execute()
}

function columnsOf(filter: SshCertificateFilter) {
  const columns = [
    ['serial', filter.serial === undefined ? undefined : toHex(filter.serial)],
    ['identity_id', filter.identityId],
    ['session_id', filter.sessionId],
    ['service_id', filter.serviceId],
    ['connector_id', filter.connectorId],
    ['kind', filter.kind],
  ] as const
  return columns.flatMap(([column, value]) => (value === undefined ? [] : [[column, value] as const]))
}

/** 16 digits: text that sorts as the number does, whatever the database. */
function toHex(serial: bigint): string {
  return serial.toString(16).padStart(16, '0')
}

function fromHex(serial: string): bigint {
  return BigInt(`0x${serial}`)
}

function toRecord(row: Selectable<SshCertificatesTable>): SshCertificateRecord {
  return {
    serial: fromHex(row.serial),
    kind: row.kind,
    fingerprint: row.fingerprint,
    keyId: row.key_id,
    principals: JSON.parse(row.principals),
    identityId: row.identity_id,
    sessionId: row.session_id ?? undefined,
    serviceId: row.service_id,
    clientAddress: row.client_address,
    connectorId: row.connector_id ?? undefined,
    notBefore: row.not_before,
    notAfter: row.not_after,
    issuedAt: row.issued_at,
    revokedAt: row.revoked_at ?? undefined,
    revokedReason: row.revoked_reason ?? undefined,
  }
}
