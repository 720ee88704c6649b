import type { WorkloadName } from '@postern/shared/workload-name'
import type { Kysely, Selectable } from 'kysely'
import type { WrittenTogether } from './audit-events.ts'
import { type Change, tellEdges } from './changes.ts'
import { inTransaction, inTransactionToTell } from './in-transaction.ts'
import type { CertificatesTable, Database } from './schema.ts'
import { revokeSshCertificates } from './ssh-certificates.ts'
import { takeTurn } from './take-turns.ts'

/** A certificate of a client, connector or workload as it was issued, and what became of it. Times in epoch
 *  milliseconds; serial and key hash in lower-case hex. */
export interface CertificateRecord {
  serial: string
  kind: 'client' | 'connector' | 'workload'
  keyHash: string
  /** Whose it is; of connectors and workloads, who made the first one. */
  identityId: string
  /** Client certificates only. */
  sessionId: string | undefined
  serviceId: string
  /** Connector certificates only: equal for all certificates of one process. */
  connectorId: string | undefined
  machine: string | undefined
  /** Workload certificates only. */
  workload?: WorkloadFacts | undefined
  notBefore: number
  notAfter: number
  issuedAt: number
  renewedBy: string | undefined
  revokedAt: number | undefined
  revokedReason: string | undefined
}

export interface WorkloadFacts {
  /** Equal for all certificates of one lineage. */
  id: string
  name: WorkloadName
  /** No renewal is valid for longer. */
  renewableUntil: number
}

export type NewCertificate = Omit<CertificateRecord, 'renewedBy' | 'revokedAt' | 'revokedReason'>

/** Writes down what was signed, its row together with its record. Nobody gets it before. */
export type KeepIssued<T> = (issued: T, row: WrittenTogether) => Promise<void>

/** The row of one, to be written together with its record. */
export function certificateRow(certificate: NewCertificate): WrittenTogether<'certificates'> {
  return {
    table: 'certificates',
    row: {
      serial: certificate.serial,
      kind: certificate.kind,
      key_hash: certificate.keyHash,
      identity_id: certificate.identityId,
      session_id: certificate.sessionId ?? null,
      service_id: certificate.serviceId,
      connector_id: certificate.connectorId ?? null,
      machine: certificate.machine ?? null,
      not_before: certificate.notBefore,
      not_after: certificate.notAfter,
      issued_at: certificate.issuedAt,
      renewed_by: null,
      revoked_at: null,
      revoked_reason: null,
      workload_id: certificate.workload?.id ?? null,
      workload: certificate.workload?.name ?? null,
      renewable_until: certificate.workload?.renewableUntil ?? null,
    },
  }
}

export async function insertCertificate(db: Kysely<Database>, certificate: NewCertificate): Promise<void> {
  await db.insertInto('certificates').values(certificateRow(certificate).row).execute()
}

/** @param serial lower-case hex; Node prints upper case: fold it first */
export async function findCertificate(
  db: Kysely<Database>,
  serial: string,
): Promise<CertificateRecord | undefined> {
  const row = await db.selectFrom('certificates').selectAll().where('serial', '=', serial).executeTakeFirst()
  return row && toCertificate(row)
}

/** @returns false when it is unknown, revoked or was renewed before: then a copy of its key is about */
export async function markCertificateRenewed(
  db: Kysely<Database>,
  serial: string,
  renewedBy: string,
): Promise<boolean> {
  const result = await db
    .updateTable('certificates')
    .set({ renewed_by: renewedBy })
    .where('serial', '=', serial)
    .where('renewed_by', 'is', null)
    .where('revoked_at', 'is', null)
    .executeTakeFirst()
  return result.numUpdatedRows > 0n
}

/** Marks the old one and inserts the new one, both or neither.
 *  @returns false as `markCertificateRenewed` does; nothing is inserted then */
export async function renewCertificate(
  db: Kysely<Database>,
  oldSerial: string,
  renewed: NewCertificate,
): Promise<boolean> {
  return inTransaction(db, async (trx) => {
    // a revocation of the lineage sees the new certificate, or this sees the revocation
    await takeTurn(trx, lineageOf(renewed))
    if (!(await markCertificateRenewed(trx, oldSerial, renewed.serial))) return false
    await insertCertificate(trx, renewed)
    return true
  })
}

/** Why a lineage ends of which two processes have the key. */
export const SUPERSEDED = 'superseded'

/** For a certificate that was renewed before. When the new key is the same as then, our answer was lost and is given
 *  again: only the real holder has that key. Otherwise the old key is in two hands, and the lineage ends.
 *  @returns whether it is answered again; if not, whether this ended the lineage */
export async function renewAgainOrEnd(
  db: Kysely<Database>,
  oldSerial: string,
  renewed: NewCertificate,
  now: number,
): Promise<{ isAnsweredAgain: boolean; isFirst: boolean }> {
  return inTransaction(db, async (trx) => {
    await takeTurn(trx, lineageOf(renewed))
    const previous = await findCertificate(trx, oldSerial)
    const successor =
      previous?.renewedBy === undefined ? undefined : await findCertificate(trx, previous.renewedBy)
    if (successor?.keyHash === renewed.keyHash && successor.revokedAt === undefined) {
      await insertCertificate(trx, renewed)
      return { isAnsweredAgain: true, isFirst: false }
    }
    const revocation = { reason: SUPERSEDED, now }
    const revoked = renewed.workload
      ? await revokeWorkload(trx, renewed.workload.id, revocation)
      : await revokeConnectorLineage(trx, renewed.connectorId!, revocation)
    return { isAnsweredAgain: false, isFirst: revoked > 0 }
  })
}

function lineageOf({ connectorId, workload }: NewCertificate): `lineage:${string}` {
  return `lineage:${workload?.id ?? connectorId}`
}

/** Revokes every certificate of one workload. @returns how many were not revoked before */
export async function revokeWorkload(
  db: Kysely<Database>,
  workloadId: string,
  revocation: { reason: string; now: number },
): Promise<number> {
  return inTransaction(db, async (trx) => {
    await takeTurn(trx, `lineage:${workloadId}`)
    await tellEdges(trx, { kind: 'workload_revoked', workloadId })
    return revokeWhere(trx, { column: 'workload_id', value: workloadId }, revocation)
  })
}

/** The newest certificate of each workload that can still be used, by service and name; of some services, or all. */
export async function listWorkloadCertificates(
  db: Kysely<Database>,
  serviceIds?: readonly string[],
): Promise<CertificateRecord[]> {
  const all = db
    .selectFrom('certificates')
    .selectAll()
    .where('kind', '=', 'workload')
    .where('renewed_by', 'is', null)
    .orderBy('issued_at', 'desc')
    .limit(MAX_LISTED)
  if (serviceIds?.length === 0) return []
  const rows = await (serviceIds ? all.where('service_id', 'in', serviceIds) : all).execute()
  return rows.map(toCertificate)
}

const MAX_LISTED = 10_000

/** Every lineage of this name, at all services. */
export async function listWorkloadIds(db: Kysely<Database>, name: string): Promise<string[]> {
  const rows = await db
    .selectFrom('certificates')
    .select('workload_id')
    .distinct()
    .where('workload', '=', name)
    .execute()
  return rows.map((row) => row.workload_id).filter((id) => id !== null)
}

/** Revokes every certificate of one connector process, those that it got for ssh servers too. @returns how many were not revoked before */
export async function revokeConnectorLineage(
  db: Kysely<Database>,
  connectorId: string,
  revocation: { reason: string; now: number },
): Promise<number> {
  return inTransaction(db, async (trx) => {
    await takeTurn(trx, `lineage:${connectorId}`)
    await revokeSshCertificates(trx, { connectorId }, revocation)
    const isSuperseded = revocation.reason === SUPERSEDED
    await tellEdges(trx, { kind: 'connector_revoked', connectorId, isSuperseded })
    return revokeWhere(trx, { column: 'connector_id', value: connectorId }, revocation)
  })
}

/** @returns how many were not revoked before */
export async function revokeSessionCertificates(
  db: Kysely<Database>,
  sessionId: string,
  revocation: { reason: string; now: number },
): Promise<number> {
  return revokeWhere(db, { column: 'session_id', value: sessionId }, revocation)
}

/** @returns how many were not revoked before */
export async function revokeCertificate(
  db: Kysely<Database>,
  serial: string,
  revocation: { reason: string; now: number },
): Promise<number> {
  return inTransactionToTell(db, async (trx) => {
    await tellEdges(trx, { kind: 'certificate_revoked', serial })
    return revokeWhere(trx, { column: 'serial', value: serial }, revocation)
  })
}

/** The client certificates of a person, not those of their connectors. @returns how many were good until now */
export async function revokeIdentityCertificates(
  db: Kysely<Database>,
  identityId: string,
  revocation: { reason: string; now: number },
): Promise<number> {
  const change: Change = { kind: 'person_revoked', identityId }
  return revokeClientCertificates(db, { column: 'identity_id', value: identityId }, revocation, change)
}

/** The newest certificate of one connector process. */
export async function findConnectorCertificate(
  db: Kysely<Database>,
  connectorId: string,
): Promise<CertificateRecord | undefined> {
  const row = await db
    .selectFrom('certificates')
    .selectAll()
    .where('connector_id', '=', connectorId)
    .orderBy('issued_at', 'desc')
    .limit(1)
    .executeTakeFirst()
  return row && toCertificate(row)
}

/** Processes with a certificate for the service that is still good. */
export async function listConnectorIds(
  db: Kysely<Database>,
  serviceId: string,
  now: number,
): Promise<string[]> {
  const rows = await db
    .selectFrom('certificates')
    .select('connector_id')
    .distinct()
    .where('service_id', '=', serviceId)
    .where('kind', '=', 'connector')
    .where('revoked_at', 'is', null)
    .where('not_after', '>', now)
    .execute()
  return rows.map((row) => row.connector_id).filter((id) => id !== null)
}

/** The certificates of people and workloads for a service. @returns how many were good until now */
export async function revokeServiceCertificates(
  db: Kysely<Database>,
  serviceId: string,
  revocation: { reason: string; now: number },
): Promise<number> {
  const change: Change = { kind: 'service_revoked', serviceId }
  return revokeClientCertificates(db, { column: 'service_id', value: serviceId }, revocation, change)
}

/** Certificates of a kind that are refused before their end: revoked, or of a login that has ended.
 *  @param endsAfter what has run out before that is left out */
export async function listRevokedSerials(
  db: Kysely<Database>,
  kind: CertificateRecord['kind'],
  endsAfter: number,
): Promise<{ serial: string; revokedAt: number; reason: string | undefined }[]> {
  const rows = await db
    .selectFrom('certificates')
    .leftJoin('sessions', 'sessions.id', 'certificates.session_id')
    .select(['serial', 'revoked_at', 'revoked_reason', 'sessions.ended_at'])
    .where('certificates.kind', '=', kind)
    .where('not_after', '>', endsAfter)
    .where((is) => is.or([is('revoked_at', 'is not', null), is('sessions.ended_at', 'is not', null)]))
    .orderBy('serial')
    .execute()
  return rows.map((row) => ({
    serial: row.serial,
    revokedAt: row.revoked_at ?? row.ended_at!,
    reason: row.revoked_reason ?? undefined,
  }))
}

/** A certificate as whoever runs the edge looks at it. */
export interface IssuedCertificate {
  serial: string
  kind: CertificateRecord['kind']
  /** Of the person; of the owner, where it is of a connector or a program. */
  email: string
  /** Of its service. */
  label: string
  issuedAt: number
  notAfter: number
  revokedAt: number | undefined
}

/** Newest first. */
export async function listIssuedCertificates(
  db: Kysely<Database>,
  wanted: { kind: CertificateRecord['kind'] | undefined; endsAfter: number; limit: number },
): Promise<IssuedCertificate[]> {
  const { kind, endsAfter, limit } = wanted
  let query = db
    .selectFrom('certificates')
    .innerJoin('identities', 'identities.id', 'certificates.identity_id')
    .innerJoin('services', 'services.id', 'certificates.service_id')
    .select(['serial', 'certificates.kind', 'identities.email', 'services.label'])
    .select(['issued_at', 'not_after', 'revoked_at'])
    .where('not_after', '>', endsAfter)
  if (kind !== undefined) query = query.where('certificates.kind', '=', kind)
  const rows = await query.orderBy('issued_at', 'desc').orderBy('serial').limit(limit).execute()
  return rows.map(({ issued_at, not_after, revoked_at, ...row }) => ({
    ...row,
    issuedAt: issued_at,
    notAfter: not_after,
    revokedAt: revoked_at ?? undefined,
  }))
}

const SERIALS_PER_QUERY = 500

/** Those of them that are there and were not revoked. */
export async function listUnrevokedSerials(
  db: Kysely<Database>,
  serials: readonly string[],
): Promise<Set<string>> {
  const found = new Set<string>()
  for (let start = 0; start < serials.length; start += SERIALS_PER_QUERY) {
    const rows = await db
      .selectFrom('certificates')
      .select('serial')
      .where('serial', 'in', serials.slice(start, start + SERIALS_PER_QUERY))
      .where('revoked_at', 'is', null)
      .execute()
    for (const row of rows) found.add(row.serial)
  }
  return found
}

/** Marks those that have expired too: a flow outlives its certificate, and whoever reads the store again finds there
 *  that it is over.
 *  @returns how many were good until now */
async function revokeClientCertificates(
  db: Kysely<Database>,
  by: { column: 'identity_id' | 'service_id'; value: string },
  { reason, now }: { reason: string; now: number },
  change: Change,
): Promise<number> {
  return inTransaction(db, async (trx) => {
    const revoke = trx
      .updateTable('certificates')
      .set({ revoked_at: now, revoked_reason: reason })
      .where(by.column, '=', by.value)
      // a person's own end with the person; those of workloads belong to the service
      .where('kind', 'in', by.column === 'service_id' ? ['client', 'workload'] : ['client'])
      .where('revoked_at', 'is', null)
    const good = await revoke.where('not_after', '>', now).executeTakeFirst()
    await revoke.execute()
    await tellEdges(trx, change)
    return Number(good.numUpdatedRows)
  })
}

async function revokeWhere(
  db: Kysely<Database>,
  by: { column: 'serial' | 'connector_id' | 'session_id' | 'workload_id'; value: string },
  revocation: { reason: string; now: number },
): Promise<number> {
  const result = await db
    .updateTable('certificates')
    .set({ revoked_at: revocation.now, revoked_reason: revocation.reason })
    .where(by.column, '=', by.value)
    .where('revoked_at', 'is', null)
    .executeTakeFirst()
  return Number(result.numUpdatedRows)
}

function toCertificate(row: Selectable<CertificatesTable>): CertificateRecord {
  return {
    serial: row.serial,
    kind: row.kind,
    keyHash: row.key_hash,
    identityId: row.identity_id,
    sessionId: row.session_id ?? undefined,
    serviceId: row.service_id,
    connectorId: row.connector_id ?? undefined,
    machine: row.machine ?? undefined,
    workload:
      row.workload_id === null
        ? undefined
        : {
            id: row.workload_id,
            name: row.workload as WorkloadName,
            renewableUntil: row.renewable_until ?? row.not_after,
          },
    notBefore: row.not_before,
    notAfter: row.not_after,
    issuedAt: row.issued_at,
    renewedBy: row.renewed_by ?? undefined,
    revokedAt: row.revoked_at ?? undefined,
    revokedReason: row.revoked_reason ?? undefined,
  }
}
