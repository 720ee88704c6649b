import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { describe, it } from 'node:test'
import { TestLog } from '../../test/edge-stage.ts'
import { putProof } from '../store/acme-proofs.ts'
import { openStore, type Store } from '../store/open.ts'
import { seal } from '../store/sealed.ts'
import type { Proof } from './challenges.ts'
import { SharedProofs } from './shared-proofs.ts'
import { TlsAlpnChallenge } from './tls-alpn-challenge.ts'

const NOW = Date.now()
const MINUTE_MS = 60_000
const SECRET = randomBytes(32).toString('base64url')
const THUMBPRINT = randomBytes(32).toString('base64url')
const PROOF: Proof = { name: 'edge.test', token: 'tok-1', keyAuthorization: `tok-1.${THUMBPRINT}` }

/** One edge of a store. */
function edgeOf({ db }: Store, more: { secret?: string; now?: number; isStoreLost?: boolean } = {}) {
  const { secret = SECRET, now = NOW, isStoreLost = false } = more
  const log = new TestLog()
  const shared = new SharedProofs({ db, secret, clock: () => now, isStoreLost: () => isStoreLost, log })
  return { shared, log, alpn: new TlsAlpnChallenge({ shared, domain: 'edge.test', log }) }
}

describe('a proof that one edge has asked for', () => {
  it('is shown by the others, by name and by token, until it is over', async () => {
    await using store = await openStore('sqlite::memory:')
    const [one, other] = [edgeOf(store), edgeOf(store)]
    const published = await one.shared.publish(PROOF)
    assert.deepEqual(await other.shared.find({ name: PROOF.name }), PROOF)
    assert.deepEqual(await other.shared.find({ token: PROOF.token }), PROOF)
    assert.ok(await other.alpn.contextFor(PROOF.name))
    assert.equal(
      await other.alpn.contextFor(PROOF.name),
      await other.alpn.contextFor(PROOF.name),
      'made once',
    )
    assert.equal(other.log.events('acme.vouches_for_another_edge').length, 1)
    const later = edgeOf(store, { now: NOW + 21 * MINUTE_MS })
    assert.equal(await later.shared.find({ name: PROOF.name }), undefined)

    await published[Symbol.asyncDispose]()
    assert.equal(await other.alpn.contextFor(PROOF.name), undefined)
  })

  it('is no secret, and stands in the store for nobody to change', async () => {
    await using store = await openStore('sqlite::memory:')
    await using _published = await edgeOf(store).shared.publish(PROOF)
    const edge = edgeOf(store)
    const isShown = async () => (await edge.alpn.contextFor(PROOF.name)) !== undefined
    assert.equal(await isShown(), true)
    const rows = await store.db.selectFrom('acme_proofs').selectAll().execute()
    assert.equal(rows.length, 1)
    const { sealed } = rows[0]!
    const row = { name: PROOF.name, token: PROOF.token, expiresAt: NOW + MINUTE_MS }
    const context = `acme proof ${row.name} ${row.token}`
    const forged: Record<string, { name: string; token: string; sealed: string; expiresAt: number }> = {
      'in the clear': { ...row, sealed: PROOF.keyAuthorization },
      empty: { ...row, sealed: '' },
      'under another secret': { ...row, sealed: seal(PROOF.keyAuthorization, 'mine', context) },
      'of another token': { ...row, token: 'tok-2', sealed },
      'no key authorization': { ...row, sealed: seal('<script>', SECRET, context) },
    }
    for (const [what, proof] of Object.entries(forged)) {
      await putProof(store.db, proof)
      assert.equal(await isShown(), false, what)
      assert.equal(await edge.shared.find({ token: proof.token }), undefined, what)
    }
    assert.equal(edge.log.events('acme.proof_foreign').length, 5, 'each is told once')
    await putProof(store.db, { ...row, name: 'mtls.edge.test', sealed })
    assert.equal(await edge.alpn.contextFor('mtls.edge.test'), undefined, 'of another name')
    await putProof(store.db, { ...row, sealed })
    assert.equal(await isShown(), true, 'and the right one is')
  })

  it('is looked for by names of this edge and possible tokens only, and never while the store is gone', async () => {
    await using store = await openStore('sqlite::memory:')
    const edge = edgeOf(store)
    await using _published = await edge.shared.publish(PROOF)
    const isExpected = (name: string) => edge.alpn.isExpected(name)
    assert.deepEqual(['edge.test', 'a.edge.test'].map(isExpected), [true, true])
    assert.deepEqual(['test', 'xedge.test', 'edge.test.evil.co'].map(isExpected), [false, false, false])
    assert.equal(new TlsAlpnChallenge().isExpected('edge.test'), false, 'alone it asks for itself')
    for (const token of ['', '../tok-1', 'tok-1?', 'x'.repeat(257)])
      assert.equal(await edge.shared.find({ token }), undefined, token)
    const lost = edgeOf(store, { isStoreLost: true })
    assert.equal(await lost.alpn.contextFor(PROOF.name), undefined)
    await store.close()
    assert.equal(await edge.alpn.contextFor(PROOF.name), undefined)
  })
})
