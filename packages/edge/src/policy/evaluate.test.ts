import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { parseEmailAddress } from '@postern/shared/email'
import type { AllowList } from '@postern/shared/identity'
import { type Conditions, EMPTY_POLICY, type Policy, type Rule } from '@postern/shared/policy'
import { parseWorkloadName } from '@postern/shared/workload-name'
import type { PolicyContext } from './conditions.ts'
import { evaluate, type Person, type PolicySubject } from './evaluate.ts'

const NOBODY: AllowList = { emailDomains: [], emailAddresses: [], anyAuthenticated: false }
/** A Wednesday. */
const NOON = Date.parse('2026-07-01T12:00:00Z')
const OFFICE = [{ days: ['wed'], from: '08:00', to: '18:00', timeZone: 'UTC' }] as const
const DEV: PolicySubject = {
  email: parseEmailAddress('dev@mycorp.com'),
  issuer: 'https://idp.mycorp.com',
  groups: ['dba', 'staff'],
}
const CONTEXT: PolicyContext = {
  sourceAddress: '10.1.2.3',
  amr: ['pwd', 'mfa'],
  acr: 'gold',
  signedInAt: NOON - 3_600_000,
  sessionKind: 'browser',
}

function decide({
  allow = NOBODY,
  defaults = {},
  policy = {},
  identity = DEV,
  context = CONTEXT,
  now = NOON,
}: {
  allow?: AllowList
  defaults?: Partial<Policy>
  policy?: Partial<Policy>
  identity?: PolicySubject
  context?: PolicyContext
  now?: number
}) {
  const service = { allow, policy: { ...EMPTY_POLICY, ...policy } }
  return evaluate({ ...EMPTY_POLICY, ...defaults }, identity, service, context, now)
}

describe('a program with a certificate of its own', () => {
  const PROGRAM: PolicySubject = { workload: parseWorkloadName('carbon-relay-3') }
  const EVERYBODY: AllowList = {
    emailDomains: ['mycorp.com'],
    emailAddresses: [parseEmailAddress('dev@mycorp.com')],
    anyAuthenticated: true,
  }
  const NAMED: Rule = { workloads: ['carbon-relay-3'] }
  const bySource: Rule = { ...NAMED, when: { sourceNetworks: ['10.0.0.0/8'] } }
  const byLogin: Rule = { ...NAMED, when: { amr: ['mfa'] } }
  const rows: [string, Parameters<typeof decide>[0], boolean][] = [
    ['no rule', {}, false],
    ['a list of everybody', { allow: EVERYBODY }, false],
    ['a rule for everybody', { policy: { allow: [{ anyAuthenticated: true }] } }, false],
    ['a rule for a domain', { policy: { allow: [{ emailDomains: ['mycorp.com'] }] } }, false],
    ['a rule for a group', { policy: { allow: [{ groups: ['dba'] }] } }, false],
    ['a rule for another program', { policy: { allow: [{ workloads: ['carbon-relay'] }] } }, false],
    ['a rule with its name', { policy: { allow: [NAMED] } }, true],
    ['a default rule with its name', { defaults: { allow: [NAMED] } }, true],
    ['a rule that also names people', { policy: { allow: [{ ...NAMED, anyAuthenticated: true }] } }, false],
    ['a network that it is in', { policy: { allow: [bySource] } }, true],
    ['a login, which it has not', { policy: { allow: [byLogin] } }, false],
    ['a required login', { policy: { allow: [NAMED], require: { maxLoginAgeMs: 60_000 } } }, false],
    ['denied by name', { policy: { allow: [NAMED], deny: [NAMED] } }, false],
    ['denied with everybody', { policy: { allow: [NAMED], deny: [{ anyAuthenticated: true }] } }, false],
    [
      'beside a denied domain',
      { policy: { allow: [NAMED], deny: [{ emailDomains: ['mycorp.com'] }] } },
      true,
    ],
  ]
  for (const [what, asked, isAllowed] of rows) {
    test(`${what}: ${isAllowed ? 'admitted' : 'refused'}`, () => {
      const context = { sourceAddress: '10.1.2.3' }
      assert.equal(decide({ ...asked, identity: PROGRAM, context }).allowed, isAllowed)
    })
  }

  test('a rule with its name admits nobody else, whatever they are called', () => {
    const identity = { ...(DEV as Person), groups: ['carbon-relay-3'] }
    assert.equal(decide({ policy: { allow: [NAMED] }, identity }).allowed, false)
    assert.equal(decide({ policy: { allow: [{ ...NAMED, anyAuthenticated: true }] } }).allowed, false)
  })
})

describe('the list of a service', () => {
  const rows: [string, AllowList, string, boolean, string][] = [
    ['empty list', NOBODY, 'a@mycorp.com', false, 'no rule admits'],
    ['domain', { ...NOBODY, emailDomains: ['mycorp.com'] }, 'A@MyCorp.com', true, 'email domain mycorp.com'],
    ['sub-domain', { ...NOBODY, emailDomains: ['mycorp.com'] }, 'a@eu.mycorp.com', false, 'no rule admits'],
    [
      'parent domain',
      { ...NOBODY, emailDomains: ['eu.mycorp.com'] },
      'a@mycorp.com',
      false,
      'no rule admits',
    ],
    [
      'look-alike before',
      { ...NOBODY, emailDomains: ['mycorp.com'] },
      'a@evil-mycorp.com',
      false,
      'no rule admits',
    ],
    [
      'look-alike after',
      { ...NOBODY, emailDomains: ['mycorp.com'] },
      'a@mycorp.com.evil',
      false,
      'no rule admits',
    ],
    [
      'address',
      { ...NOBODY, emailAddresses: ['c@gmail.com'] },
      'c@gmail.com',
      true,
      'email address c@gmail.com',
    ],
    [
      'plus-tag is another address',
      { ...NOBODY, emailAddresses: ['c@gmail.com'] },
      'c+x@gmail.com',
      false,
      'no rule admits',
    ],
    ['any authenticated', { ...NOBODY, anyAuthenticated: true }, 'x@y.org', true, 'any authenticated'],
  ]
  for (const [name, allow, email, allowed, rule] of rows) {
    test(name, () => {
      const decision = decide({ allow, identity: { ...DEV, email: parseEmailAddress(email) } })
      assert.equal(decision.allowed, allowed)
      assert.equal(decision.rule, rule)
    })
  }
})

describe('rules', () => {
  const matching: Rule[] = [
    { anyAuthenticated: true },
    { emailAddresses: ['x@y.org', 'dev@mycorp.com'] },
    { emailDomains: ['mycorp.com'] },
    { groups: ['other', 'dba'] },
    { providers: ['https://idp.mycorp.com'] },
    { emailDomains: ['mycorp.com'], groups: ['dba'], providers: ['https://idp.mycorp.com'] },
  ]
  const others: Rule[] = [
    { emailAddresses: ['x@y.org'] },
    { emailDomains: ['corp.com'] },
    { groups: ['DBA'] },
    { providers: ['https://idp.mycorp.com/'] },
    { emailDomains: ['mycorp.com'], groups: ['other'] },
    { anyAuthenticated: true, groups: ['other'] },
    { emailAddresses: [] },
    {},
    { name: 'about nobody' },
  ]
  for (const rule of matching) {
    test(`about the person: ${JSON.stringify(rule)}`, () => {
      assert.equal(decide({ policy: { allow: [rule] } }).allowed, true)
      assert.equal(decide({ defaults: { allow: [rule] } }).allowed, true)
      const allow = { ...NOBODY, anyAuthenticated: true }
      assert.equal(decide({ allow, policy: { deny: [rule] } }).allowed, false)
      assert.equal(decide({ allow, defaults: { deny: [rule] } }).allowed, false)
    })
  }
  for (const rule of others) {
    test(`not about the person: ${JSON.stringify(rule)}`, () => {
      assert.equal(decide({ policy: { allow: [rule] } }).allowed, false)
      assert.equal(
        decide({ allow: { ...NOBODY, anyAuthenticated: true }, policy: { deny: [rule] } }).allowed,
        true,
      )
    })
  }

  test('deny wins, and the person does not hear why', () => {
    const policy = {
      allow: [{ groups: ['dba'] }],
      deny: [{ name: 'left', emailAddresses: ['dev@mycorp.com'] }],
    }
    assert.deepEqual(decide({ policy }), {
      allowed: false,
      code: 'ACCESS_DENIED',
      rule: 'deny rule "left"',
      ruleKind: 'deny_rule',
    })
  })

  test('somebody whose provider tells no groups is in none', () => {
    assert.equal(
      decide({ policy: { allow: [{ groups: ['dba'] }] }, identity: { ...DEV, groups: [] } }).allowed,
      false,
    )
  })
})

interface Case {
  holds: Conditions
  fails: Conditions
  code: string
  /** The context without what the condition asks for. */
  missing: PolicyContext
  /** What may have been told, and is of no use. */
  malformed: PolicyContext[]
}
const { sourceAddress: _a, ...noAddress } = CONTEXT
const { amr: _b, ...noAmr } = CONTEXT
const { acr: _c, ...noAcr } = CONTEXT
const { signedInAt: _d, ...noSignedInAt } = CONTEXT
const { sessionKind: _e, ...noKind } = CONTEXT

const conditions: Record<string, Case> = {
  'source network': {
    holds: { sourceNetworks: ['192.0.2.1', '10.0.0.0/8'] },
    fails: { sourceNetworks: ['10.2.0.0/16', '2001:db8::/32', '0.0.0.0/32'] },
    code: 'NETWORK_NOT_ALLOWED',
    missing: noAddress,
    malformed: ['', 'unknown', '10.1.2', '10.1.2.3:80', '::ffff:10.1.2.3.4'].map((sourceAddress) => ({
      ...CONTEXT,
      sourceAddress,
    })),
  },
  'authentication methods': {
    holds: { amr: ['mfa', 'pwd'] },
    fails: { amr: ['mfa', 'hwk'] },
    code: 'STRONGER_LOGIN_REQUIRED',
    missing: noAmr,
    malformed: [
      { ...CONTEXT, amr: [] },
      { ...CONTEXT, amr: ['MFA', 'pwd '] },
    ],
  },
  'authentication class': {
    holds: { acr: ['silver', 'gold'] },
    fails: { acr: ['platinum'] },
    code: 'STRONGER_LOGIN_REQUIRED',
    missing: noAcr,
    malformed: [
      { ...CONTEXT, acr: '' },
      { ...CONTEXT, acr: 'gold ' },
    ],
  },
  'age of the login': {
    holds: { maxLoginAgeMs: 3_600_001 },
    fails: { maxLoginAgeMs: 3_600_000 },
    code: 'LOGIN_TOO_OLD',
    missing: noSignedInAt,
    malformed: [
      { ...CONTEXT, signedInAt: Number.NaN },
      { ...CONTEXT, signedInAt: 0 },
    ],
  },
  'kind of login': {
    holds: { sessionKinds: ['browser'] },
    fails: { sessionKinds: ['device'] },
    code: 'SESSION_KIND_NOT_ALLOWED',
    missing: noKind,
    malformed: [{ ...CONTEXT, sessionKind: 'Browser' as never }],
  },
}

for (const [name, { holds, fails, code, missing, malformed }] of Object.entries(conditions)) {
  describe(`a condition on ${name}`, () => {
    const everybody = { ...NOBODY, anyAuthenticated: true }
    const refused = (decision: ReturnType<typeof decide>) => {
      assert.equal(decision.allowed, false)
      assert.equal(!decision.allowed && decision.code, code)
    }

    test('holds: a rule admits, a requirement lets pass, a deny rule denies', () => {
      assert.equal(decide({ policy: { allow: [{ groups: ['dba'], when: holds }] } }).allowed, true)
      assert.equal(decide({ allow: everybody, policy: { require: holds } }).allowed, true)
      assert.equal(decide({ allow: everybody, defaults: { require: holds } }).allowed, true)
      assert.equal(
        decide({ allow: everybody, policy: { deny: [{ groups: ['dba'], when: holds }] } }).allowed,
        false,
      )
    })

    test('does not hold: refused with its code; a deny rule does not deny', () => {
      refused(decide({ policy: { allow: [{ groups: ['dba'], when: fails }] } }))
      refused(decide({ allow: everybody, policy: { require: fails } }))
      refused(decide({ allow: everybody, defaults: { require: fails } }))
      assert.equal(
        decide({ allow: everybody, policy: { deny: [{ groups: ['dba'], when: fails }] } }).allowed,
        true,
      )
    })

    test('was never told: refused everywhere', () => {
      refused(decide({ policy: { allow: [{ groups: ['dba'], when: holds }] }, context: missing }))
      refused(decide({ allow: everybody, policy: { require: holds }, context: missing }))
      const deny = [{ groups: ['dba'], when: fails }]
      assert.equal(decide({ allow: everybody, policy: { deny }, context: missing }).allowed, false)
    })

    for (const context of malformed) {
      test(`malformed: ${JSON.stringify(context)}`, () => {
        refused(decide({ policy: { allow: [{ groups: ['dba'], when: holds }] }, context }))
        refused(decide({ allow: everybody, policy: { require: holds }, context }))
      })
    }

    test('tells nothing of itself to who would not be admitted anyway', () => {
      const decision = decide({ policy: { allow: [{ groups: ['other'], when: fails }], require: fails } })
      assert.equal(!decision.allowed && decision.code, 'ACCESS_DENIED')
    })
  })
}

describe('a condition on the time of the week', () => {
  const everybody = { ...NOBODY, anyAuthenticated: true }
  const six = Date.parse('2026-07-01T18:00:00Z')

  test('holds until its window ends', () => {
    const admitted = decide({ allow: everybody, policy: { require: { hours: OFFICE } } })
    assert.equal(admitted.allowed && admitted.until, six)
    const ruled = decide({ policy: { allow: [{ groups: ['dba'], when: { hours: OFFICE } }] } })
    assert.equal(ruled.allowed && ruled.until, six)
  })

  test('outside', () => {
    const decision = decide({ allow: everybody, policy: { require: { hours: OFFICE } }, now: six })
    assert.equal(!decision.allowed && decision.code, 'OUTSIDE_HOURS')
  })

  test('of a deny rule: asked again each minute, so that it bites when it opens', () => {
    const deny = [{ groups: ['dba'], when: { hours: [{ ...OFFICE[0], from: '12:01' }] } }]
    const before = decide({ allow: everybody, policy: { deny } })
    assert.equal(before.allowed && before.until, NOON + 60_000)
    assert.equal(decide({ allow: everybody, policy: { deny }, now: NOON + 60_000 }).allowed, false)
  })

  test('the rule that admits longest counts', () => {
    const late = [{ ...OFFICE[0], to: '20:00' }]
    const allow = [
      { groups: ['dba'], when: { hours: OFFICE } },
      { groups: ['staff'], when: { hours: late } },
    ]
    const decision = decide({ policy: { allow } })
    assert.equal(decision.allowed && decision.until, Date.parse('2026-07-01T20:00:00Z'))
    const always = decide({ policy: { allow: [...allow, { groups: ['staff'] }] } })
    assert.equal(always.allowed && always.until, undefined)
  })

  test('the shortest of what must hold counts', () => {
    const decision = decide({
      allow: everybody,
      defaults: { require: { maxLoginAgeMs: 2 * 3_600_000 } },
      policy: { require: { hours: OFFICE } },
    })
    assert.equal(decision.allowed && decision.until, CONTEXT.signedInAt! + 2 * 3_600_000)
  })
})

test('of two limits the smaller counts', () => {
  const decision = decide({
    allow: { ...NOBODY, anyAuthenticated: true },
    defaults: { limits: { maxFlowLengthMs: 1_000, maxFlowsPerIdentity: 5 } },
    policy: { limits: { maxFlowsPerIdentity: 2 } },
  })
  assert.deepEqual(decision.allowed && decision.limits, { maxFlowLengthMs: 1_000, maxFlowsPerIdentity: 2 })
})

test('IPv6, and IPv4 that came over it', () => {
  const policy = { require: { sourceNetworks: ['2001:db8::/32', '10.0.0.0/8'] } }
  const from = (sourceAddress: string) =>
    decide({ allow: { ...NOBODY, anyAuthenticated: true }, policy, context: { ...CONTEXT, sourceAddress } })
      .allowed
  assert.deepEqual(['2001:db8:1::1', '::ffff:10.1.2.3'].map(from), [true, true])
  assert.deepEqual(['2001:db9::1', '::ffff:11.1.2.3', '::10.1.2.3'].map(from), [false, false, false])
})

/** A small generator with a seed, so that a failure can be repeated. */
function createRandom(seed: number) {
  let state = seed
  const next = () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    return state / 2 ** 32
  }
  const pick = <T>(from: readonly T[]): T => from[Math.floor(next() * from.length)]!
  return { next, pick }
}

test('adding a deny never widens, removing an allow never widens: 5,000 policies', () => {
  const seed = Date.now() >>> 0
  const { next, pick } = createRandom(seed)
  const whens: Conditions[] = [
    {},
    { hours: OFFICE },
    { hours: [{ ...OFFICE[0], days: ['mon'] }] },
    ...Object.values(conditions).flatMap(({ holds, fails }) => [holds, fails]),
  ]
  const rule = (): Rule => {
    const who: Rule[] = [
      { anyAuthenticated: true },
      { emailAddresses: [pick(['dev@mycorp.com', 'x@y.org'])] },
      { emailDomains: [pick(['mycorp.com', 'y.org'])] },
      { groups: [pick(['dba', 'other'])] },
      { providers: [pick(['https://idp.mycorp.com', 'https://other.org'])] },
    ]
    return { ...pick(who), ...(next() < 0.3 ? pick(who) : {}), when: pick(whens) }
  }
  const rules = () => Array.from({ length: Math.floor(next() * 4) }, rule)
  const policy = (): Policy => ({
    allow: rules(),
    deny: next() < 0.5 ? [] : rules(),
    require: pick(whens),
    limits: {},
  })
  const contexts = [CONTEXT, ...Object.values(conditions).map(({ missing }) => missing)]
  let admitted = 0
  for (let round = 0; round < 5_000; round++) {
    const [defaults, own] = [policy(), policy()]
    const allow = {
      ...NOBODY,
      anyAuthenticated: next() < 0.5,
      emailDomains: next() < 0.5 ? ['mycorp.com'] : [],
    }
    const asked = { allow, context: pick(contexts), now: NOON + Math.floor(next() * 7 * 86_400_000) }
    const isAllowed = (changed: { defaults?: Policy; policy?: Policy; allow?: AllowList }) =>
      decide({ ...asked, defaults, policy: own, ...changed }).allowed
    if (isAllowed({})) {
      admitted++
      continue
    }
    const narrower = {
      'a deny for this service': { policy: { ...own, deny: [...own.deny, rule()] } },
      'a deny for all': { defaults: { ...defaults, deny: [rule(), ...defaults.deny] } },
      'an allow less': { policy: { ...own, allow: own.allow.slice(1) } },
      'a default allow less': { defaults: { ...defaults, allow: defaults.allow.slice(0, -1) } },
      'a shorter list': { allow: NOBODY },
    }
    for (const [what, changed] of Object.entries(narrower)) {
      assert.equal(isAllowed(changed), false, `seed ${seed}, round ${round}: ${what} let somebody in`)
    }
  }
  assert.ok(admitted > 250 && admitted < 4_750, `${admitted} admitted: the policies are worth little`)
})
