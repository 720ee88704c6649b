import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { EMPTY_POLICY, type Policy, type SubjectRule } from '@postern/shared/policy'
import { changeTrust, type TrustChange } from './trust-change.ts'

const NOTHING: TrustChange = { trust: [], crls: new Map(), distrust: [], admit: [], dismiss: [] }
const named = (name: string): SubjectRule => ({ ca: 'acme', fields: [{ type: 'CN', equals: name }] })
const ACME = { name: 'acme', certificate: 'PEM', crl: 'CRL' }
const CONDITIONAL = { subjects: [named('c'), named('d')], when: { amr: ['mfa'] } }
const POLICY: Policy = {
  ...EMPTY_POLICY,
  allow: [{ emailDomains: ['mycorp.com'] }, CONDITIONAL, { subjects: [named('a')] }],
  deny: [{ subjects: [named('evil')] }],
  limits: { maxFlowsPerIdentity: 3 },
  trustedClientCas: [ACME],
}

describe('changeTrust', () => {
  it('puts a subject into the rule that says nothing else, once, and makes one where there is none', () => {
    const changed = changeTrust(POLICY, { ...NOTHING, admit: [named('b'), named('a'), named('b')] })
    assert.deepEqual(changed, {
      ...POLICY,
      allow: [POLICY.allow[0], CONDITIONAL, { subjects: [named('a'), named('b')] }],
    })
    const first = changeTrust(EMPTY_POLICY, { ...NOTHING, trust: [ACME], admit: [named('a')] })
    assert.deepEqual(first, {
      ...EMPTY_POLICY,
      allow: [{ subjects: [named('a')] }],
      trustedClientCas: [ACME],
    })
  })

  it('takes a subject out wherever it is admitted, with the rule that named nobody else', () => {
    const changed = changeTrust(POLICY, { ...NOTHING, dismiss: [named('a'), named('c')] })
    assert.deepEqual(changed.allow, [POLICY.allow[0], { ...CONDITIONAL, subjects: [named('d')] }])
    assert.deepEqual(changed.deny, POLICY.deny, 'who is denied stays so')
    assert.throws(() => changeTrust(POLICY, { ...NOTHING, dismiss: [named('evil')] }), {
      code: 'USAGE_INVALID',
      message: /acme:CN=evil/,
    })
  })

  it('keeps the list of revoked certificates when the certificate of the CA is given anew', () => {
    const changed = changeTrust(POLICY, { ...NOTHING, trust: [{ name: 'acme', certificate: 'NEW' }] })
    assert.deepEqual(changed.trustedClientCas, [{ name: 'acme', certificate: 'NEW', crl: 'CRL' }])
    const listed = changeTrust(POLICY, { ...NOTHING, crls: new Map([['acme', 'NEWER']]) })
    assert.deepEqual(listed.trustedClientCas, [{ ...ACME, crl: 'NEWER' }])
  })

  it('leaves no rule without its CA, and says which', () => {
    assert.throws(() => changeTrust(POLICY, { ...NOTHING, distrust: ['acme'] }), /acme:CN=c names a CA/)
    const dismiss = ['a', 'c', 'd'].map(named)
    assert.throws(
      () => changeTrust(POLICY, { ...NOTHING, distrust: ['acme'], dismiss }),
      /acme:CN=evil names a CA/,
      'a deny rule that knows nobody any more would deny nobody',
    )
    const denyingNobody = { ...POLICY, deny: [] }
    const gone = changeTrust(denyingNobody, { ...NOTHING, distrust: ['acme'], dismiss })
    assert.deepEqual(gone, { ...EMPTY_POLICY, limits: POLICY.limits, allow: [POLICY.allow[0]] })
  })

  it('refuses what is not there', () => {
    for (const change of [{ distrust: ['other'] }, { crls: new Map([['other', 'CRL']]) }]) {
      assert.throws(() => changeTrust(POLICY, { ...NOTHING, ...change }), {
        code: 'USAGE_INVALID',
        message: /"other"/,
      })
    }
  })
})
