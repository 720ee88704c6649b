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
    groups: ['a', 7, 'b'],
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

test('what the ID token says wins, and "verified" is never said of another address', () => {
  const userInfo = { sub: '1', email: 'b@mycorp.com', email_verified: true, groups: ['x'] }
  assert.equal(mergeClaims({ email: 'a@mycorp.com', email_verified: true }, userInfo).email, 'a@mycorp.com')
  const unsaid = mergeClaims({ email: 'a@evil.com' }, userInfo)
  assert.deepEqual([unsaid.email, unsaid.email_verified], ['b@mycorp.com', true])
  const halves = mergeClaims({ email_verified: true }, { email: 'b@mycorp.com' })
  assert.deepEqual([halves.email, halves.email_verified], ['b@mycorp.com', undefined])
  assert.deepEqual(mergeClaims({ groups: ['id'] }, userInfo).groups, ['id'])
})
