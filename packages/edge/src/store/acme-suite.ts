import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { findProof, putProof, removeProof } from './acme-proofs.ts'
import { endLease, keepLease, type Lease, takeLease } from './leases.ts'
import { NOW, type StoreFactory } from './login-suite.ts'

const MANY = Array.from({ length: 20 }, (_, index) => index)
const leaseOf = (holder: string): Lease => ({ name: 'acme-order', holder })
const span = (now: number) => ({ now, until: now + 60 })

/** What edges need to get certificates side by side, on any database. */
export function describeAcmeTables(name: string, openEmpty: StoreFactory): void {
  describe(`${name}: leases`, () => {
    it('are had by one of twenty', async () => {
      await using store = await openEmpty()
      const taken = await Promise.all(MANY.map((n) => takeLease(store.db, leaseOf(`e${n}`), span(NOW))))
      assert.equal(taken.filter(Boolean).length, 1)
    })

    it('last while they are kept, and are taken from who died or has ended', async () => {
      await using store = await openEmpty()
      const { db } = store
      const [one, other] = [leaseOf('one'), leaseOf('other')]
      assert.equal(await takeLease(db, one, span(NOW)), true)
      assert.equal(await keepLease(db, one, span(NOW + 59)), true)
      assert.equal(await takeLease(db, other, span(NOW + 60)), false)
      assert.equal(await keepLease(db, other, span(NOW + 60)), false)
      await endLease(db, other) // not his
      assert.equal(await takeLease(db, other, span(NOW + 118)), false)
      assert.equal(await takeLease(db, other, span(NOW + 119)), true)
      assert.equal(await keepLease(db, one, span(NOW + 119)), false)
      await endLease(db, other)
      assert.equal(await takeLease(db, one, span(NOW + 120)), true)
    })

    it('that have run out are not kept, and are forgotten', async () => {
      let now = NOW
      await using store = await openEmpty(() => now)
      await takeLease(store.db, leaseOf('one'), span(NOW))
      assert.equal(await keepLease(store.db, leaseOf('one'), span(NOW + 60)), false)
      assert.equal(await store.purge(), 0)
      now += 60
      assert.equal(await store.purge(), 1)
    })
  })

  describe(`${name}: proofs for a CA`, () => {
    const proof = { name: 'edge.co', token: 't1', sealed: 's1', expiresAt: NOW + 10 }

    it('are found by name and by token until they expire', async () => {
      let now = NOW
      await using store = await openEmpty(() => now)
      await putProof(store.db, proof)
      assert.deepEqual(await findProof(store.db, { name: 'edge.co' }, NOW + 9), proof)
      assert.deepEqual(await findProof(store.db, { token: 't1' }, NOW + 9), proof)
      assert.equal(await findProof(store.db, { name: 'mtls.edge.co' }, NOW), undefined)
      assert.equal(await findProof(store.db, { token: 'edge.co' }, NOW), undefined)
      assert.equal(await findProof(store.db, { name: 'edge.co' }, NOW + 10), undefined)
      now += 10
      assert.equal(await store.purge(), 1)
    })

    it('are replaced by the next for the name, which the one before does not take along', async () => {
      await using store = await openEmpty()
      await putProof(store.db, proof)
      const next = { ...proof, token: 't2', sealed: 's2' }
      await putProof(store.db, next)
      await removeProof(store.db, proof)
      assert.equal(await findProof(store.db, { token: 't1' }, NOW), undefined)
      assert.deepEqual(await findProof(store.db, { name: 'edge.co' }, NOW), next)
      await removeProof(store.db, next)
      assert.equal(await findProof(store.db, { name: 'edge.co' }, NOW), undefined)
    })
  })
}
