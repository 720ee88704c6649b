import { type Compilable, CompiledQuery, type Kysely } from 'kysely'
import type { Database } from './schema.ts'

/** For SQLite: a whole transaction in one message to the thread that writes. */
export interface ConditionalWrite extends CompiledQuery {
  claim: CompiledQuery
  rest: readonly CompiledQuery[]
  restChanges: number
}

export function isConditional(query: CompiledQuery): query is ConditionalWrite {
  return 'claim' in query
}

/** Carries out `claim` and, if that has changed a row, what follows: all of it or nothing. SQLite only.
 *  @param restChanges how many rows what follows changes
 *  @returns false when the claim has changed nothing
 *  @throws RECORD_FAILED something else has been carried out than this */
export async function writeIf(
  db: Kysely<Database>,
  claim: Compilable,
  { rest, restChanges }: { rest: readonly Compilable[]; restChanges: number },
): Promise<boolean> {
  if (db.isTransaction) throw new Error('it is a transaction of its own')
  const write: ConditionalWrite = {
    ...CompiledQuery.raw('commit'), // as which it is measured: it waits for the disk
    claim: claim.compile(),
    rest: rest.map((query) => query.compile()),
    restChanges,
  }
  const { numAffectedRows = 0n } = await db.executeQuery(write)
  return numAffectedRows > 0n
}
