import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type AllowList, describeAllowList, sameAllowList } from './identity.ts'

const NOBODY: AllowList = { emailDomains: [], emailAddresses: [], anyAuthenticated: false }
const LIST: AllowList = { ...NOBODY, emailDomains: ['a.com', 'b.com'], emailAddresses: ['x@c.com'] }

test('allow-lists are the same in any order, and differ in every rule', () => {
  assert.ok(sameAllowList(LIST, { ...LIST, emailDomains: ['b.com', 'a.com'] }))
  assert.ok(!sameAllowList(LIST, { ...LIST, emailDomains: ['a.com'] }))
  assert.ok(!sameAllowList(LIST, { ...LIST, emailAddresses: [] }))
  assert.ok(!sameAllowList(LIST, { ...LIST, anyAuthenticated: true }))
  assert.ok(!sameAllowList(LIST, { ...LIST, emailDomains: ['a.com'], emailAddresses: ['b.com', 'x@c.com'] }))
})

test('says in one line who may enter', () => {
  assert.equal(describeAllowList(NOBODY), 'nobody')
  assert.equal(describeAllowList(LIST), 'domains a.com, b.com; addresses x@c.com')
  assert.equal(describeAllowList({ ...NOBODY, anyAuthenticated: true }), 'anybody who signs in')
})
