import assert from 'node:assert/strict'
import { it } from 'node:test'
import { PolicyDocuments } from './policy-documents.ts'

const rowOf = (scope: string, revision = 1, changed_at = 1_000) => {
  const policy = JSON.stringify({ allow: [{ name: scope }], deny: [], require: {}, limits: {} })
  return { scope, policy, revision, changed_at, changed_by: 'idn_1', trusts_cas: 0 }
}

it('knows a document at the revision and the time it was read at, and at no other', () => {
  const documents = new PolicyDocuments()
  assert.equal(documents.get(rowOf('svc_1')), undefined)
  const policy = documents.keep(rowOf('svc_1'))
  assert.equal(policy.allow[0]?.name, 'svc_1')
  assert.equal(documents.get(rowOf('svc_1')), policy)
  assert.equal(documents.get(rowOf('svc_1', 2)), undefined)
  assert.equal(documents.get(rowOf('svc_1', 1, 1_001)), undefined)
  assert.equal(documents.get(rowOf('svc_2')), undefined)
  const next = documents.keep(rowOf('svc_1', 2))
  assert.equal(documents.get(rowOf('svc_1', 2)), next)
  assert.equal(documents.get(rowOf('svc_1')), undefined)
})

it('keeps no more than it may: what was asked for longest ago goes first, and what is too large is not kept', () => {
  const { length } = rowOf('svc_1').policy
  const documents = new PolicyDocuments(2 * length)
  for (const scope of ['svc_1', 'svc_2']) documents.keep(rowOf(scope))
  documents.get(rowOf('svc_1'))
  documents.keep(rowOf('svc_3'))
  const known = ['svc_1', 'svc_2', 'svc_3'].filter((scope) => documents.get(rowOf(scope)))
  assert.deepEqual(known, ['svc_1', 'svc_3'])
  const large = rowOf('x'.repeat(2 * length))
  assert.equal(documents.keep(large).allow[0]?.name, large.scope)
  assert.equal(documents.get(large), undefined)
})
