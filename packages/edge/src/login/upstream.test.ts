import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { UpstreamIdentity } from '../config/config.ts'
import { mergeClaims, verifyAccount } from './upstream.ts'

const IDENTITY: UpstreamIdentity = {
  kind: 'upstream',
  issuer: new URL('https://idp.example'),
  clientId: 'edge',
  clientSecret: 'secret',
  scopes: ['openid'],
  groupsClaim: 'groups',
  emailDomains: ['mycorp.com'],
  requiredClaims: { hd: 'mycorp.com', level: 2, staff: true },
  unsafeAcceptUnverifiedEmail: false,
}

const CLAIMS = {
  iss: 'https://idp.example',
  sub: '1',
  email: 'dev@mycorp.com',
  email_verified: true,
  hd: 'mycorp.com',
  level: [1, 2],
  staff: true,
}

const REFUSED: [string, Record<string, unknown>][] = [
  ['no email', { email: undefined }],
  ['email is not text', { email: ['dev@mycorp.com'] }],
  ['email is not an address', { email: 'dev' }],
  ['two addresses', { email: 'dev@mycorp.com,x@evil.com' }],
  ['a line feed', { email: 'dev@mycorp.com\n' }],
  ['email_verified missing', { email_verified: undefined }],
  ['email_verified false', { email_verified: false }],
  ['email_verified as text false', { email_verified: 'false' }],
  ['email_verified 1', { email_verified: 1 }],
  ['another domain', { email: 'dev@evil.com' }],
  ['a sub-domain', { email: 'dev@a.mycorp.com' }],
  ['a domain that only ends alike', { email: 'dev@notmycorp.com' }],
  ['required claim missing', { hd: undefined }],
  ['required claim with another value', { hd: 'mycorp.com.evil' }],
  ['required claim of another type', { level: '2' }],
  ['required claim not in the list', { level: [1, 3] }],
  ['required boolean as text', { staff: 'true' }],
  ['a group that is not text', { groups: ['a', 7] }],
  ['groups as a section', { groups: { a: true } }],
  ['an empty group', { groups: ['a', ''] }],
  ['a group that is too long', { groups: ['x'.repeat(129)] }],
  ['a group with a line feed', { groups: ['a\nb'] }],
  ['a group with NUL', { groups: 'a\0' }],
  ['half a character', { groups: ['\ud800'] }],
  ['too many groups', { groups: Array.from({ length: 201 }, (_, n) => `g${n}`) }],
  ['groups that are kept elsewhere', { _claim_names: { groups: 'src1' } }],
  ['methods that are not text', { amr: [1] }],
  ['too many methods', { amr: Array.from({ length: 21 }, (_, n) => `m${n}`) }],
  ['a level that is not text', { acr: 1 }],
  ['a time of sign-in that is none', { auth_time: '5' }],
  ['a time of sign-in before all time', { auth_time: -1 }],
]

for (const [name, change] of REFUSED) {
  test(`an account is refused: ${name}`, () => {
    assert.throws(() => verifyAccount(IDENTITY, { ...CLAIMS, ...change }), { code: 'LOGIN_REFUSED' })
  })
}

test('an account with everything is accepted', () => {
  const account = verifyAccount(IDENTITY, {
    ...CLAIMS,
    email: 'Dev@MyCorp.COM',
    groups: ['a', 'b', 'a'],
    auth_time: 5,
  })
  assert.deepEqual(account, {
    issuer: 'https://idp.example',
    subject: '1',
    email: 'dev@mycorp.com',
    groups: ['a', 'b'],
    authTime: 5,
  })
  assert.deepEqual(verifyAccount(IDENTITY, { ...CLAIMS, email_verified: 'true', groups: 'one' }).groups, [
    'one',
  ])
})

test('as much as may be is taken whole', () => {
  const groups = Array.from({ length: 200 }, (_, n) => `${n}`.padEnd(128, 'x'))
  assert.deepEqual(verifyAccount(IDENTITY, { ...CLAIMS, groups }).groups, groups)
  const elsewhere = { groups: ['a'], _claim_names: { groups: 'src1', photo: 'src2' } }
  assert.deepEqual(verifyAccount(IDENTITY, { ...CLAIMS, ...elsewhere }).groups, ['a'])
  const { amr, acr } = verifyAccount(IDENTITY, { ...CLAIMS, amr: 'otp', acr: '2' })
  assert.deepEqual([amr, acr], [['otp'], '2'])
})

test('what the ID token says wins, and "verified" is never said of another address', () => {
  const userInfo = { sub: '1', email: 'b@mycorp.com', email_verified: true, groups: ['x'] }
  assert.equal(mergeClaims({ email: 'a@mycorp.com', email_verified: true }, userInfo).email, 'a@mycorp.com')
  const unsaid = mergeClaims({ email: 'a@evil.com' }, userInfo)
  assert.deepEqual([unsaid.email, unsaid.email_verified], ['b@mycorp.com', true])
  const halves = mergeClaims({ email_verified: true }, { email: 'b@mycorp.com' })
  assert.deepEqual([halves.email, halves.email_verified], ['b@mycorp.com', undefined])
  assert.deepEqual(mergeClaims({ groups: ['id'] }, userInfo).groups, ['id'])
  const later = { sub: '1', amr: ['hwk'], acr: 'high', auth_time: 9 }
  assert.deepEqual(mergeClaims({ amr: ['pwd'] }, later), { sub: '1', amr: ['pwd'] })
})
