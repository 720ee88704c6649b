import { type Kysely, sql } from 'kysely'
import * as v from 'valibot'
import type { Database } from './schema.ts'
import { isPostgres } from './take-turns.ts'

/** Which keys the edges on this store have: public halves, as fingerprints, with their dates. A row lives as long as its
 *  edge says so again; the clock is the database's, so that nobody's own makes an edge look gone. */

const time = v.pipe(v.number(), v.safeInteger())

const DatedKey = v.object({
  /** A fingerprint. */
  name: v.pipe(v.string(), v.maxLength(128)),
  signsFrom: time,
  trustedUntil: v.nullable(time),
})
/** By what they are for, oldest first. */
const KeyRing = v.record(
  v.pipe(v.string(), v.maxLength(64)),
  v.pipe(v.array(DatedKey), v.minLength(1), v.maxLength(64)),
)
const KeyRingText = v.pipe(v.string(), v.parseJson(), KeyRing)
export type KeyRing = Readonly<Record<string, readonly v.InferOutput<typeof DatedKey>[]>>

export interface EdgeKeys {
  /** Its name on this store: one for each start. */
  edge: string
  /** For people: where it runs. */
  place: string
  keys: KeyRing
}

/** An edge that has said nothing for so long is gone. */
export const EDGE_SEEN_MS = 30_000

/** Says it, or says it again. */
export async function announceEdge(db: Kysely<Database>, { edge, place, keys }: EdgeKeys): Promise<void> {
  const said = { place, keys: JSON.stringify(keys), seen_at: databaseTime(db) }
  await db
    .insertInto('edge_keys')
    .values({ edge, ...said })
    .onConflict((conflict) => conflict.column('edge').doUpdateSet(said))
    .execute()
}

export async function forgetEdge(db: Kysely<Database>, edge: string): Promise<void> {
  await db.deleteFrom('edge_keys').where('edge', '=', edge).execute()
}

/** Those that run, without this one. What another version has written in another form is left out. */
export async function listOtherEdges(db: Kysely<Database>, self: string): Promise<EdgeKeys[]> {
  const rows = await db
    .selectFrom('edge_keys')
    .select(['edge', 'place', 'keys'])
    .where('edge', '!=', self)
    .where('seen_at', '>', sql<number>`${databaseTime(db)} - ${EDGE_SEEN_MS}`)
    .orderBy('place')
    .execute()
  return rows.flatMap(({ edge, place, keys }) => {
    const parsed = v.safeParse(KeyRingText, keys)
    return parsed.success ? [{ edge, place, keys: parsed.output }] : []
  })
}

/** Epoch milliseconds. */
function databaseTime(db: Kysely<Database>) {
  return isPostgres(db)
    ? sql<number>`cast(extract(epoch from clock_timestamp()) * 1000 as bigint)`
    : sql<number>`cast(unixepoch('subsec') * 1000 as integer)`
}
