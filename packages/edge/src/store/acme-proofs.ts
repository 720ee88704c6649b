import type { Kysely } from 'kysely'
import type { AcmeProofsTable, Database } from './schema.ts'

/** Proofs that a CA looks for now, at whichever edge. What is `sealed` is for the edges alone to read and to write. */
export interface SealedProof {
  /** The name that is proven. */
  name: string
  token: string
  sealed: string
  /** Epoch milliseconds. */
  expiresAt: number
}

/** In place of an earlier one for this name: edges order one after the other. */
export async function putProof(db: Kysely<Database>, { expiresAt, ...proof }: SealedProof): Promise<void> {
  const row = { ...proof, expires_at: expiresAt }
  await db
    .insertInto('acme_proofs')
    .values(row)
    .onConflict((conflict) => conflict.column('name').doUpdateSet(row))
    .execute()
}

export async function findProof(
  db: Kysely<Database>,
  wanted: { name: string } | { token: string },
  now: number,
): Promise<SealedProof | undefined> {
  const [[column, value]] = Object.entries(wanted) as [['name' | 'token', string]]
  const row = await db
    .selectFrom('acme_proofs')
    .selectAll()
    .where(column, '=', value)
    .where('expires_at', '>', now)
    .executeTakeFirst()
  return row && toProof(row)
}

/** Not one that has come in its place. */
export async function removeProof(db: Kysely<Database>, { name, token }: SealedProof): Promise<void> {
  await db.deleteFrom('acme_proofs').where('name', '=', name).where('token', '=', token).execute()
}

function toProof({ expires_at, ...proof }: AcmeProofsTable): SealedProof {
  return { ...proof, expiresAt: expires_at }
}
