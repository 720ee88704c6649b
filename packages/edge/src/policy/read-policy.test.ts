import assert from 'node:assert/strict'
import { describe, it, test } from 'node:test'
import { PosternError } from '@postern/shared/errors'
import { EMPTY_POLICY, type Policy } from '@postern/shared/policy'
import { readPolicy } from './read-policy.ts'

function read(policy: Partial<Policy>): Policy {
  return readPolicy({ ...EMPTY_POLICY, ...policy })
}

function problemsOf(policy: Partial<Policy>): string[] {
  try {
    read(policy)
  } catch (error) {
    assert.ok(error instanceof PosternError && error.code === 'POLICY_INVALID', String(error))
    return error.details!.problems as string[]
  }
  return []
}

describe('a rule for programs', () => {
  it('has names that are read strictly, and names no people', () => {
    const rule = { workloads: ['b', 'a.b_c-3', 'b'] }
    assert.deepEqual(read({ allow: [rule] }).allow, [{ workloads: ['a.b_c-3', 'b'] }])
    for (const name of ['', ' a', 'a b', '-a', 'a-', 'ä', 'a\0', 'a@b.co', 'workload:a', 'x'.repeat(65)]) {
      const [problem] = problemsOf({ allow: [{ workloads: [name] }] })
      assert.match(problem ?? '', /^allow\[0\]\.workloads: .* is not the name of a workload$/)
    }
    assert.deepEqual(problemsOf({ deny: [{ ...rule, groups: ['x'] }] }), [
      'deny[0]: names people, workloads or subjects together: nobody is two of them, write one rule for each',
    ])
  })
})

describe('a policy document', () => {
  it('is read into its one form', () => {
    const policy = read({
      allow: [
        { emailDomains: ['MyCorp.com', 'a.org', 'mycorp.com'], when: { sourceNetworks: ['2001:DB8::/32'] } },
      ],
    })
    assert.deepEqual(policy.allow, [
      { emailDomains: ['a.org', 'mycorp.com'], when: { sourceNetworks: ['2001:db8::/32'] } },
    ])
  })

  it('is refused whole, and every bad entry is named with its place', () => {
    const problems = problemsOf({
      allow: [{ emailDomains: ['*.evil.org', 'fine.org'] }, { name: 'nobody' }],
      deny: [{ emailAddresses: ['x'], when: { maxLoginAgeMs: 60_000 } }],
      require: {
        sourceNetworks: ['10.0.0.1/8'],
        hours: [{ days: ['mon'], from: '08:00', to: '08:00', timeZone: 'Mars/Olympus' }],
        amr: ['a\u0007'],
      },
    })
    const places = problems.map((problem) => problem.slice(0, problem.indexOf(':')))
    assert.deepEqual(places.sort(), [
      'allow[0].emailDomains',
      'allow[1]',
      'deny[0].emailAddresses',
      'deny[0].when',
      'require.amr',
      'require.hours[0]',
      'require.hours[0]',
      'require.sourceNetworks',
    ])
  })
})

const good = [
  '10.0.0.0/8',
  '10.1.2.3',
  '10.1.2.3/32',
  '0.0.0.0/0',
  '::/0',
  '::1',
  '2001:db8::/32',
  'fe80::/10',
]
good.push('1:2:3:4:5:6:7:8', '::ffff:10.0.0.0/104', '1:2:3:4:5:6:7::')
for (const network of good) {
  test(`network ${network}`, () =>
    assert.deepEqual(problemsOf({ require: { sourceNetworks: [network] } }), []))
}
const bad = [
  '',
  '10.0.0.0/33',
  '10.0.0.1/31',
  '10.0.0/8',
  '10.0.0.0/',
  '10.0.0.0/8/8',
  '10.0.0.0/-1',
  '::1/127',
]
bad.push('fe80::1%eth0', 'mycorp.com', '10.0.0.0/8 ', '::ffff:10.0.0.1/104', '2001:db8::/129', '010.0.0.0/8')
for (const network of bad) {
  test(`no network: ${JSON.stringify(network)}`, () =>
    assert.equal(problemsOf({ require: { sourceNetworks: [network] } }).length, 1))
}
