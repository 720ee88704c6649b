import { DEFAULT_SSH_SETTINGS, type SshSettings } from '@postern/shared/api/ssh'
import { PosternError } from '@postern/shared/errors'
import type { AllowList } from '@postern/shared/identity'
import type { ServiceLabel } from '@postern/shared/service-label'
import type { Kysely, Selectable, Transaction } from 'kysely'
import { tellEdges } from './changes.ts'
import { inTransaction } from './in-transaction.ts'
import { newId } from './new-id.ts'
import type { Database, ServicesTable } from './schema.ts'
import { revokeSshCertificates } from './ssh-certificates.ts'
import { takeTurn } from './take-turns.ts'

/** A service as it is written. Deleted ones are not found by any function here. */
export interface ServiceRecord {
  id: string
  label: ServiceLabel
  /** What its owner calls it; unique among the owner's services. */
  name: string
  type: 'tls'
  ownerId: string
  allow: AllowList
  /** Starts at 1 and grows with every change. */
  revision: number
  ssh: SshSettings
  createdAt: number
  updatedAt: number
}

export type NewService = Pick<ServiceRecord, 'label' | 'name' | 'type' | 'ownerId' | 'allow'>

export interface ServiceChange {
  name?: string | undefined
  allow?: AllowList | undefined
  /** Gives the new settings from those that stand when it is asked. */
  changeSsh?: ((before: SshSettings) => SshSettings) | undefined
  /** The revision that was looked at. */
  revision?: number | undefined
}

/** Creates the service and takes its label in one transaction. The label of a deleted service goes back to its
 *  owner only, for ever: people have it in their ssh configuration.
 *  @throws LABEL_TAKEN · NAME_TAKEN */
export async function createService(
  db: Kysely<Database>,
  service: NewService,
  now: number,
): Promise<ServiceRecord> {
  return inTransaction(db, async (trx) => {
    await takeTurn(trx, 'services')
    await refuseTakenName(trx, service.ownerId, service.name)
    await refuseTakenLabel(trx, service)
    return insertService(trx, service, now)
  })
}

export async function findServiceById(db: Kysely<Database>, id: string): Promise<ServiceRecord | undefined> {
  const row = await present(db).where('id', '=', id).executeTakeFirst()
  return row && toService(row)
}

export async function findServiceByLabel(
  db: Kysely<Database>,
  label: string,
): Promise<ServiceRecord | undefined> {
  const row = await present(db).where('label', '=', label).executeTakeFirst()
  return row && toService(row)
}

export async function findServiceByName(
  db: Kysely<Database>,
  ownerId: string,
  name: string,
): Promise<ServiceRecord | undefined> {
  const row = await present(db).where('owner_id', '=', ownerId).where('name', '=', name).executeTakeFirst()
  return row && toService(row)
}

/** Every service that has had this label, deleted ones too. */
export async function listServiceIdsByLabel(db: Kysely<Database>, label: string): Promise<string[]> {
  const rows = await db.selectFrom('services').select('id').where('label', '=', label).execute()
  return rows.map(({ id }) => id)
}

/** Of one owner, or all; by label. */
export async function listServices(
  db: Kysely<Database>,
  filter: { ownerId?: string | undefined } = {},
): Promise<ServiceRecord[]> {
  const query =
    filter.ownerId === undefined ? present(db) : present(db).where('owner_id', '=', filter.ownerId)
  const rows = await query.execute()
  // sorted here: PostgreSQL sorts text as the language of the database does
  return rows.map(toService).sort((a, b) => (a.label < b.label ? -1 : 1))
}

/** Changes name, allow-list or settings and raises the revision; undefined when there is no such service.
 *  @throws REVISION_CONFLICT it is no longer at `change.revision` · NAME_TAKEN */
export async function updateService(
  db: Kysely<Database>,
  id: string,
  change: ServiceChange,
  now: number,
): Promise<{ before: ServiceRecord; after: ServiceRecord } | undefined> {
  return inTransaction(db, async (trx) => {
    await takeTurn(trx, 'services')
    const before = await findServiceById(trx, id)
    if (!before) return undefined
    if (change.revision !== undefined && change.revision !== before.revision) throw revisionConflict(before)
    const name = change.name ?? before.name
    if (name !== before.name) await refuseTakenName(trx, before.ownerId, name)
    const row = await trx
      .updateTable('services')
      .set({
        name,
        allow: JSON.stringify(change.allow ?? before.allow),
        ...(change.changeSsh ? { ssh: JSON.stringify(change.changeSsh(before.ssh)) } : {}),
        revision: before.revision + 1,
        updated_at: now,
      })
      .where('id', '=', id)
      .where('revision', '=', before.revision)
      .where('deleted_at', 'is', null)
      .returningAll()
      .executeTakeFirst()
    if (!row) throw revisionConflict(before)
    await tellEdges(trx, { kind: 'service', serviceId: id })
    return { before, after: toService(row) }
  })
}

/** Hides the service for good, revokes its ssh certificates and forgets its enroll tokens; its label stays with its owner. Gives what was deleted. */
export async function deleteService(
  db: Kysely<Database>,
  id: string,
  now: number,
): Promise<ServiceRecord | undefined> {
  return inTransaction(db, async (trx) => {
    await takeTurn(trx, `enroll:${id}`)
    const row = await trx
      .updateTable('services')
      .set({ deleted_at: now, updated_at: now })
      .where('id', '=', id)
      .where('deleted_at', 'is', null)
      .returningAll()
      .executeTakeFirst()
    await revokeSshCertificates(trx, { serviceId: id }, { reason: 'service deleted', now })
    await trx.deleteFrom('enroll_tokens').where('service_id', '=', id).execute()
    if (row) await tellEdges(trx, { kind: 'service_deleted', serviceId: id, label: row.label })
    return row && toService(row)
  })
}

function present(db: Kysely<Database>) {
  return db.selectFrom('services').selectAll().where('deleted_at', 'is', null)
}

async function refuseTakenName(trx: Transaction<Database>, ownerId: string, name: string): Promise<void> {
  const taken = await findServiceByName(trx, ownerId, name)
  if (!taken) return
  throw new PosternError(
    'NAME_TAKEN',
    `the name ${JSON.stringify(name)} belongs to the service ${taken.label}`,
  )
}

async function refuseTakenLabel(trx: Transaction<Database>, service: NewService): Promise<void> {
  const holder = await trx
    .selectFrom('labels')
    .select('owner_id')
    .where('label', '=', service.label)
    .executeTakeFirst()
  if (holder && holder.owner_id !== service.ownerId) throw labelTaken(service.label)
  if (await findServiceByLabel(trx, service.label)) throw labelTaken(service.label)
}

async function insertService(
  trx: Transaction<Database>,
  service: NewService,
  now: number,
): Promise<ServiceRecord> {
  const row = await trx
    .insertInto('services')
    .values({
      id: newId('svc'),
      label: service.label,
      name: service.name,
      type: service.type,
      owner_id: service.ownerId,
      allow: JSON.stringify(service.allow),
      revision: 1,
      ssh: null,
      created_at: now,
      updated_at: now,
      deleted_at: null,
    })
    .returningAll()
    .executeTakeFirstOrThrow()
  await trx
    .insertInto('labels')
    .values({ label: service.label, owner_id: service.ownerId, service_id: row.id })
    .onConflict((conflict) =>
      conflict
        .column('label')
        .doUpdateSet({ service_id: row.id })
        .where('labels.owner_id', '=', service.ownerId),
    )
    .execute()
  return toService(row)
}

function labelTaken(label: string, cause?: unknown): PosternError {
  return new PosternError('LABEL_TAKEN', `the label ${label} is taken`, { cause })
}

function revisionConflict(service: ServiceRecord): PosternError {
  return new PosternError('REVISION_CONFLICT', `the service ${service.label} was changed in the meantime`, {
    details: { revision: service.revision },
  })
}

function toService(row: Selectable<ServicesTable>): ServiceRecord {
  return {
    id: row.id,
    label: row.label as ServiceLabel,
    name: row.name,
    type: row.type,
    ownerId: row.owner_id,
    allow: JSON.parse(row.allow),
    revision: row.revision,
    ssh: row.ssh === null ? DEFAULT_SSH_SETTINGS : JSON.parse(row.ssh),
    createdAt: row.created_at,
    updatedAt: row.updated_at,
  }
}
