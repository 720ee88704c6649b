import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { PosternError } from '@postern/shared/errors'
import type { Policy } from '@postern/shared/policy'
import { formatPolicyFile, parsePolicyFile } from './policy-file.ts'

const POLICY: Policy = {
  allow: [
    {
      name: 'on call',
      groups: ['dba'],
      providers: ['https://idp.mycorp.com'],
      when: {
        sourceNetworks: ['10.0.0.0/8'],
        hours: [{ days: ['mon', 'fri'], from: '08:00', to: '18:00', timeZone: 'Europe/Berlin' }],
        amr: ['mfa'],
        maxLoginAgeMs: 8 * 3_600_000,
      },
    },
    { anyAuthenticated: true, emailDomains: ['mycorp.com'] },
  ],
  deny: [{ emailAddresses: ['left@mycorp.com'] }],
  require: { sessionKinds: ['browser'], acr: ['gold'] },
  limits: { maxFlowLengthMs: 90_000, maxFlowsPerIdentity: 5 },
}

function problemsOf(text: string): string {
  try {
    parsePolicyFile(text, 'p.yaml')
  } catch (error) {
    assert.ok(error instanceof PosternError && error.code === 'POLICY_INVALID')
    return error.message
  }
  return ''
}

describe('a policy file', () => {
  it('is read back to what it was written from', () => {
    for (const service of ['crimson-thunder-8434', undefined]) {
      const document = { service, revision: 3, policy: POLICY }
      const text = formatPolicyFile(document)
      assert.deepEqual(parsePolicyFile(text, 'p.yaml'), [document])
      assert.match(text, /max_login_age: 8h\n/)
      assert.match(text, /max_flow_length: 90s\n/)
    }
  })

  it('may have several documents, each for somebody else', () => {
    const found = parsePolicyFile('defaults: true\n---\nservice: a\ndeny: []\n---\nservice: b\n', 'p.yaml')
    assert.deepEqual(
      found.map(({ service, revision }) => [service, revision]),
      [
        [undefined, undefined],
        ['a', undefined],
        ['b', undefined],
      ],
    )
    assert.match(problemsOf('service: a\n---\nservice: a\n'), /a stands there twice/)
  })

  for (const [text, message] of [
    ['', /empty/],
    ['- a', /document 1 is not a section/],
    ['allow: []', /must say for whom it is/],
    ['service: a\ndefaults: true', /must say for whom it is/],
    ['service: a\nalow: []', /document 1: alow is not a key of a policy, did you mean allow\?/],
    [
      'service: a\nallow: [{ email_domain: [x.org] }]',
      /allow\[0\]: email_domain is not a key of a policy, did you mean email_domains\?/,
    ],
    ['service: a\nallow: { groups: [x] }', /allow must be a list/],
    ['service: a\nrequire: { hours: [{ tz: UTC }] }', /require: hours\[0\]: tz is not a key/],
    ['service: a\nrequire: { max_login_age: 8 }', /must be a duration like 8h, not 8/],
    ['service: a\nrequire: { amr: }', /require: amr is empty/],
    ['service: a\nrevision: -1', /revision must be a whole number/],
    ['service: a\nservice: b', /unique/],
    ['service: &x a\nallow: [{ groups: [*x] }]', /aliases/],
    ['service: a\n__proto__: { allow: [] }', /__proto__ is not a key/],
    ['service: a\nlimits: !!js/function "x"', /tag/i],
  ] as const) {
    it(`is refused: ${JSON.stringify(text)}`, () => assert.match(problemsOf(text), message))
  }
})
