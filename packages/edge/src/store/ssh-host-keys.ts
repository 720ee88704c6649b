import type { Kysely, Selectable } from 'kysely'
import { inTransaction } from './in-transaction.ts'
import type { Database, SshHostKeysTable } from './schema.ts'
import { takeTurn } from './take-turns.ts'

/** The host keys of a service's target as its connector reported them; lines of OpenSSH, sorted. */
export interface HostKeyRecord {
  serviceId: string
  /** Accepted: what people's ssh compares with. */
  keys: readonly string[]
  /** Starts at 1 and grows with every accepted change. */
  revision: number
  /** Seen later, different, accepted by nobody. */
  pending: readonly string[] | undefined
  updatedAt: number
}

export async function findHostKeys(
  db: Kysely<Database>,
  serviceId: string,
): Promise<HostKeyRecord | undefined> {
  const row = await db
    .selectFrom('ssh_host_keys')
    .selectAll()
    .where('service_id', '=', serviceId)
    .executeTakeFirst()
  return row && toRecord(row)
}

export type HostKeyReport = 'first' | 'same' | 'changed' | 'changed again'

/** Keeps what a connector saw. The first report is believed; another one waits for its owner, and one that is as
 *  recorded takes back what waited. `changed again`: it waits already. */
export async function reportHostKeys(
  db: Kysely<Database>,
  { serviceId, keys, now }: { serviceId: string; keys: readonly string[]; now: number },
): Promise<{ report: HostKeyReport; record: HostKeyRecord }> {
  const sorted = JSON.stringify([...new Set(keys)].sort())
  return inTransaction(db, async (trx) => {
    await takeTurn(trx, `host-keys:${serviceId}`)
    const before = await trx
      .selectFrom('ssh_host_keys')
      .selectAll()
      .where('service_id', '=', serviceId)
      .executeTakeFirst()
    if (!before) {
      const row = { service_id: serviceId, keys: sorted, revision: 1, pending: null, updated_at: now }
      await trx.insertInto('ssh_host_keys').values(row).execute()
      return { report: 'first', record: toRecord(row) }
    }
    const pending = sorted === before.keys ? null : sorted
    if (pending === before.pending) {
      return { report: pending === null ? 'same' : 'changed again', record: toRecord(before) }
    }
    const after = { ...before, pending, updated_at: now }
    await trx
      .updateTable('ssh_host_keys')
      .set({ pending, updated_at: now })
      .where('service_id', '=', serviceId)
      .execute()
    return { report: pending === null ? 'same' : 'changed', record: toRecord(after) }
  })
}

/** Puts the keys that wait in the place of the recorded ones. Undefined when none wait. */
export async function acceptHostKeys(
  db: Kysely<Database>,
  serviceId: string,
  now: number,
): Promise<{ before: HostKeyRecord; after: HostKeyRecord } | undefined> {
  return inTransaction(db, async (trx) => {
    await takeTurn(trx, `host-keys:${serviceId}`)
    const before = await findHostKeys(trx, serviceId)
    if (!before?.pending) return undefined
    const after = {
      ...before,
      keys: before.pending,
      revision: before.revision + 1,
      pending: undefined,
      updatedAt: now,
    }
    await trx
      .updateTable('ssh_host_keys')
      .set({ keys: JSON.stringify(after.keys), revision: after.revision, pending: null, updated_at: now })
      .where('service_id', '=', serviceId)
      .execute()
    return { before, after }
  })
}

function toRecord(row: Selectable<SshHostKeysTable>): HostKeyRecord {
  return {
    serviceId: row.service_id,
    keys: JSON.parse(row.keys),
    revision: row.revision,
    pending: row.pending === null ? undefined : JSON.parse(row.pending),
    updatedAt: row.updated_at,
  }
}
