import type { Kysely } from 'kysely'
import type { Database } from './schema.ts'
import { hashSecret } from './sealed.ts'

/** Notes that `key` was used; true only for the first use, also between several edges on one database.
 *  @param key unique in its purpose: `dpop:<thumbprint>:<jti>`
 *  @param expiresAt epoch milliseconds after which it may be forgotten; never before the guarded proof is stale */
export async function useOnce(db: Kysely<Database>, key: string, expiresAt: number): Promise<boolean> {
  const result = await db
    .insertInto('replay_guards')
    .values({ key_hash: hashSecret(key), expires_at: expiresAt })
    .onConflict((conflict) => conflict.column('key_hash').doNothing())
    .executeTakeFirst()
  return (result.numInsertedOrUpdatedRows ?? 0n) > 0n
}
