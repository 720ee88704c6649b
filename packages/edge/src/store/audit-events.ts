import { type ExportedRecord, hashRecord, NOTHING_BEFORE } from '@postern/shared/audit/record'
import { type Insertable, type Kysely, type SelectQueryBuilder, sql, type Transaction } from 'kysely'
import { inTransaction } from './in-transaction.ts'
import type { AuditEventsTable, Database } from './schema.ts'
import { isPostgres, takeTurn } from './take-turns.ts'
import { writeIf } from './write-if.ts'

/** An audit event as it is written; `audit/event.ts` knows what is in it. */
export interface AuditRow {
  at: number
  type: string
  flowId: string | undefined
  identityId: string | undefined
  serviceId: string | undefined
  code: string | undefined
  /** JSON of the whole event. */
  event: string
}

/** Where a chain has come to. */
export interface ChainHead {
  position: number
  hash: string
  /** Of the last record that is a checkpoint. */
  checkpointPosition: number
  checkpointAt: number
}

/** What an edge adds to its chain by itself. */
export interface AuditChain {
  id: string
  /** The first record. @param before what is in the log without a chain */
  begin(before: { records: number; lastSeq: number }): AuditRow
  /** A record that signs everything up to `head`, if it is time for one. */
  checkpoint(head: ChainHead, options: { mustSign: boolean }): AuditRow | undefined
}

/** Rows per statement: SQLite takes 32,766 values in one, PostgreSQL 65,535. */
const ROWS_PER_INSERT = 500

/** A row that is on disk together with a record, or neither is. */
export type WrittenTogether<T extends TogetherTable = TogetherTable> = {
  [Table in T]: { table: Table; row: Insertable<Database[Table]> }
}[T]
const TOGETHER_TABLES = ['certificates', 'ssh_certificates'] as const
type TogetherTable = (typeof TOGETHER_TABLES)[number]

export interface AppendOptions {
  together?: readonly WrittenTogether[]
  /** A checkpoint comes last, unless it already is. */
  mustSign?: boolean
  /** Where the chain stood after the last append. Saves reading it, and is not believed: where the chain stands
   *  elsewhere nothing is written at first, and then it is read. */
  after?: ChainHead | undefined
}

export interface Appended {
  /** The new one. */
  head: ChainHead
  /** If this has written one. */
  checkpoint: AuditRow | undefined
}

/** Writes all of them or none, linked to the chain's last; they are on disk when this resolves. Numbers appear in their
 *  order: whoever reads on from the highest number misses none. The head is read or compared where it is written, so
 *  neither a crash nor a second process with the same chain can fork it. */
export async function appendAuditEvents(
  db: Kysely<Database>,
  chain: AuditChain,
  rows: readonly AuditRow[],
  options: AppendOptions = {},
): Promise<Appended> {
  const { after, mustSign = false, together = [] } = options
  if (after && !isPostgres(db)) {
    const links = new Links(chain.id, after)
    const checkpoint = addAll(links, chain, { rows, mustSign })
    const append = {
      rest: [...insertLinks(db, links), ...insertTogether(db, together)],
      restChanges: links.rows.length + together.length,
    }
    if (await writeIf(db, moveHead(db, chain.id, after, links.head), append)) {
      return { head: links.head, checkpoint }
    }
  }
  return inTransaction(db, (trx) => readAndAppend(trx, chain, { rows, mustSign, together }))
}

async function readAndAppend(
  trx: Transaction<Database>,
  chain: AuditChain,
  { rows, mustSign, together }: ToAppend & { together: readonly WrittenTogether[] },
): Promise<Appended> {
  await takeTurn(trx, 'audit') // PostgreSQL numbers a row when it is written, and shows it when that is committed
  const stored = await findHead(trx, chain.id)
  const links = new Links(chain.id, stored)
  if (!stored) links.add(chain.begin(await countUnlinked(trx)))
  const checkpoint = addAll(links, chain, { rows, mustSign: !stored || mustSign })
  let written = 0n
  for (const insert of insertLinks(trx, links)) {
    const { numInsertedOrUpdatedRows = 0n } = await insert.executeTakeFirst()
    written += numInsertedOrUpdatedRows
  }
  for (const insert of insertTogether(trx, together)) await insert.execute()
  if (written !== BigInt(links.rows.length)) throw new Error(`the store has written ${written} records`)
  if (links.rows.length > 0) await saveHead(trx, chain.id, links.head)
  return { head: links.head, checkpoint }
}

interface ToAppend {
  rows: readonly AuditRow[]
  mustSign: boolean
}

/** @returns the checkpoint, if it is time for one */
function addAll(links: Links, chain: AuditChain, { rows, mustSign }: ToAppend): AuditRow | undefined {
  for (const row of rows) links.add(row)
  const checkpoint = chain.checkpoint(links.head, { mustSign })
  if (checkpoint) links.addCheckpoint(checkpoint)
  return checkpoint
}

function insertLinks(db: Kysely<Database>, { rows }: Links) {
  return inParts(rows).map((part) => db.insertInto('audit_events').values(part))
}

function inParts<T>(rows: readonly T[]): T[][] {
  const parts = []
  for (let start = 0; start < rows.length; start += ROWS_PER_INSERT) {
    parts.push(rows.slice(start, start + ROWS_PER_INSERT))
  }
  return parts
}

/** One statement for all rows of a table: on PostgreSQL others wait meanwhile. */
function insertTogether(db: Kysely<Database>, rows: readonly WrittenTogether[]) {
  return TOGETHER_TABLES.flatMap((table) => {
    const values = rows.filter((one) => one.table === table).map(({ row }) => row)
    return inParts(values).map((part) => db.insertInto(table).values(part as never))
  })
}

/** What is written of one flow, in its order: a handful of events. */
export async function listFlowEvents(
  db: Kysely<Database>,
  flowId: string,
): Promise<{ at: number; event: string }[]> {
  return db
    .selectFrom('audit_events')
    .select(['at', 'event'])
    .where('flow_id', '=', flowId)
    .orderBy('seq')
    .limit(100)
    .execute()
}

/** Rows on their way, each with the hash of the one before. */
class Links {
  readonly rows: Insertable<AuditEventsTable>[] = []
  readonly #chain: string
  #head: ChainHead

  constructor(chain: string, head: ChainHead | undefined) {
    this.#chain = chain
    this.#head = head ?? { position: 0, hash: NOTHING_BEFORE, checkpointPosition: 0, checkpointAt: 0 }
  }

  get head(): ChainHead {
    return this.#head
  }

  add(row: AuditRow): void {
    const { at, type, event } = row
    const [chain, position, previous] = [this.#chain, this.#head.position + 1, this.#head.hash]
    const hash = hashRecord({ chain, position, at, type, previous, event })
    this.rows.push({
      ...{ at, type, event, chain, position, previous, hash },
      flow_id: row.flowId ?? null,
      identity_id: row.identityId ?? null,
      service_id: row.serviceId ?? null,
      code: row.code ?? null,
    })
    this.#head = { ...this.#head, position, hash }
  }

  addCheckpoint(row: AuditRow): void {
    this.add(row)
    this.#head = { ...this.#head, checkpointPosition: this.#head.position, checkpointAt: row.at }
  }
}

/** Whether the store turned a row away, and would take others. */
export function isConstraint(error: unknown): boolean {
  const { code, errcode } = error as { code?: unknown; errcode?: unknown }
  if (typeof errcode === 'number') return errcode % 256 === SQLITE_CONSTRAINT
  return typeof code === 'string' && code.startsWith('23') && code.length === 5
}

/** In the low byte; integrity constraints of PostgreSQL are class 23. */
const SQLITE_CONSTRAINT = 19

export async function findHead(db: Kysely<Database>, chain: string): Promise<ChainHead | undefined> {
  const row = await db.selectFrom('audit_chains').selectAll().where('id', '=', chain).executeTakeFirst()
  return (
    row && {
      position: row.position,
      hash: row.hash,
      checkpointPosition: row.checkpoint_position,
      checkpointAt: row.checkpoint_at,
    }
  )
}

async function saveHead(trx: Transaction<Database>, id: string, head: ChainHead): Promise<void> {
  const values = toChainRow(head)
  await trx
    .insertInto('audit_chains')
    .values({ id, ...values })
    .onConflict((conflict) => conflict.column('id').doUpdateSet(values))
    .execute()
}

/** Changes nothing where the chain does not stand at `from`. */
function moveHead(db: Kysely<Database>, id: string, from: ChainHead, to: ChainHead) {
  return db
    .updateTable('audit_chains')
    .set(toChainRow(to))
    .where('id', '=', id)
    .where('position', '=', from.position)
    .where('hash', '=', from.hash)
}

function toChainRow(head: ChainHead) {
  return {
    position: head.position,
    hash: head.hash,
    checkpoint_position: head.checkpointPosition,
    checkpoint_at: head.checkpointAt,
  }
}

async function countUnlinked(trx: Transaction<Database>): Promise<{ records: number; lastSeq: number }> {
  const { records, lastSeq } = await trx
    .selectFrom('audit_events')
    .select(({ fn }) => [fn.countAll<number>().as('records'), fn.max('seq').as('lastSeq')])
    .where('chain', 'is', null)
    .executeTakeFirstOrThrow()
  return { records: Number(records), lastSeq: Number(lastSeq ?? 0) }
}

/** Which events; everything left out admits all. Times are epoch milliseconds, the first one inclusive. */
export interface AuditFilter {
  type?: string | undefined
  code?: string | undefined
  flowId?: string | undefined
  /** Any of these. */
  identityIds?: readonly string[] | undefined
  serviceIds?: readonly string[] | undefined
  since?: number | undefined
  until?: number | undefined
}

/** An empty list is no SQL; no id is empty. */
const NOBODY = ''

/** Oldest first: the `limit` events after `after`; without `after` the newest `limit`. */
export async function listAuditEvents(
  db: Kysely<Database>,
  page: AuditFilter & { after?: number | undefined; limit: number },
): Promise<(AuditRow & { seq: number })[]> {
  let query = db.selectFrom('audit_events').selectAll().limit(page.limit)
  if (page.type !== undefined) query = query.where('type', '=', page.type)
  if (page.code !== undefined) query = query.where('code', '=', page.code)
  if (page.flowId !== undefined) query = query.where('flow_id', '=', page.flowId)
  if (page.identityIds !== undefined) query = query.where('identity_id', 'in', [NOBODY, ...page.identityIds])
  if (page.serviceIds !== undefined) query = query.where('service_id', 'in', [NOBODY, ...page.serviceIds])
  if (page.since !== undefined) query = query.where('at', '>=', page.since)
  if (page.until !== undefined) query = query.where('at', '<', page.until)
  if (page.after !== undefined) query = query.where('seq', '>', page.after).orderBy('seq', 'asc')
  else query = query.orderBy('seq', 'desc')
  const rows = await query.execute()
  if (page.after === undefined) rows.reverse()
  return rows.map((row) => ({
    seq: row.seq,
    at: row.at,
    type: row.type,
    flowId: row.flow_id ?? undefined,
    identityId: row.identity_id ?? undefined,
    serviceId: row.service_id ?? undefined,
    code: row.code ?? undefined,
    event: row.event,
  }))
}

const EXPORTED = ['seq', 'at', 'type', 'event', 'chain', 'position', 'previous', 'hash'] as const

/** Of all events of one page. One event may have some hundred thousand of them: a long allow-list before and after. */
const MAX_PAGE_CHARACTERS = 4_000_000

/** The log as it was written, oldest first: at most `limit` records after number `after`, fewer when they are large,
 *  none when there are none. */
export function readAuditLog(
  db: Kysely<Database>,
  page: { after: number; until?: number | undefined; limit: number },
): Promise<ExportedRecord[]> {
  let query = db.selectFrom('audit_events').where('seq', '>', page.after).orderBy('seq', 'asc')
  if (page.until !== undefined) query = query.where('seq', '<=', page.until)
  return readBounded(db, query.limit(page.limit))
}

/** The same for one chain, by position. */
export function readAuditChain(
  db: Kysely<Database>,
  page: { chain: string; after: number; limit: number },
): Promise<ExportedRecord[]> {
  const query = db
    .selectFrom('audit_events')
    .where('chain', '=', page.chain)
    .where('position', '>', page.after)
    .orderBy('position', 'asc')
  return readBounded(db, query.limit(page.limit))
}

/** Looks at the lengths first, so that no page is larger than it may be. */
async function readBounded(
  db: Kysely<Database>,
  query: SelectQueryBuilder<Database, 'audit_events', object>,
): Promise<ExportedRecord[]> {
  const sizes = await query.select(['seq', sql<number>`length(event)`.as('size')]).execute()
  let total = 0
  const seqs = sizes
    .filter(({ size }, index) => {
      total += size
      return index === 0 || total <= MAX_PAGE_CHARACTERS
    })
    .map(({ seq }) => seq)
  if (seqs.length === 0) return []
  const rows = await db
    .selectFrom('audit_events')
    .select(EXPORTED)
    .where('seq', 'in', seqs)
    .orderBy('seq', 'asc')
    .execute()
  return rows.map(toExported)
}

function toExported(
  row: Pick<AuditEventsTable, Exclude<(typeof EXPORTED)[number], 'seq'>> & { seq: number },
) {
  const { seq, at, type, event, chain, position, previous, hash } = row
  if (chain === null) return { seq, at, type, event }
  return { seq, at, type, event, chain, position: position!, previous: previous!, hash: hash! }
}
