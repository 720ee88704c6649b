import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { sql } from 'kysely'
import { announceEdge, EDGE_SEEN_MS, forgetEdge, listOtherEdges } from './edge-keys.ts'
import type { StoreFactory } from './login-suite.ts'
import type { Store } from './open.ts'

const KEYS = { client: [{ name: 'sha256:aa', signsFrom: 0, trustedUntil: null }] }
const first = { edge: 'e1', place: 'edge-1, process 7', keys: KEYS }
const second = { edge: 'e2', place: 'edge-2, process 8', keys: {} }

/** As if it had said so that long ago. */
async function age({ db }: Store, edge: string, ms: number): Promise<void> {
  await db
    .updateTable('edge_keys')
    .set({ seen_at: sql<number>`seen_at - ${ms}` })
    .where('edge', '=', edge)
    .execute()
}

export function describeEdgeKeys(name: string, openEmpty: StoreFactory): void {
  describe(`${name}: keys of edges`, () => {
    it('shows what the others have said last, until they go', async () => {
      await using store = await openEmpty()
      const { db } = store
      await announceEdge(db, first)
      await announceEdge(db, { ...second, keys: KEYS })
      await announceEdge(db, second)
      assert.deepEqual(await listOtherEdges(db, 'e1'), [second])
      assert.deepEqual(await listOtherEdges(db, 'e3'), [first, second])
      await forgetEdge(db, 'e1')
      assert.deepEqual(await listOtherEdges(db, 'e3'), [second])
    })

    it('takes one that says nothing any more for gone, and deletes it later', async () => {
      await using store = await openEmpty(() => Date.now())
      const { db } = store
      await announceEdge(db, first)
      await announceEdge(db, second)
      await age(store, 'e1', EDGE_SEEN_MS)
      assert.deepEqual(await listOtherEdges(db, 'e3'), [second])
      await announceEdge(db, first)
      assert.deepEqual(await listOtherEdges(db, 'e3'), [first, second], 'it only stood still')
      await age(store, 'e2', 3_600_000)
      assert.equal(await store.purge(), 1)
    })

    it('leaves out what it cannot read', async () => {
      await using store = await openEmpty()
      const { db } = store
      await announceEdge(db, first)
      for (const [index, keys] of ['', '7', '{"client":[]}', '{"client":[{"name":1}]}'].entries()) {
        await announceEdge(db, { ...second, edge: `bad-${index}` })
        await db.updateTable('edge_keys').set({ keys }).where('edge', '=', `bad-${index}`).execute()
      }
      assert.deepEqual(await listOtherEdges(db, 'e3'), [first])
    })
  })
}
