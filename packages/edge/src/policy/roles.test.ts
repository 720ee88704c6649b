import assert from 'node:assert/strict'
import { it } from 'node:test'
import { parseEmailAddress } from '@postern/shared/email'
import type { PosternError } from '@postern/shared/errors'
import { readRoles } from './roles.ts'

const nobody = { emailDomains: [], emailAddresses: [], anyAuthenticated: false }
const who = (email: string) => ({ email: parseEmailAddress(email) })

it('roles are exactly what the configuration lists', () => {
  const roles = readRoles({
    operators: { ...nobody, emailDomains: ['mycorp.com'] },
    admins: { ...nobody, emailAddresses: ['admin@other.org'] },
  })
  assert.deepEqual(roles.of(who('dev@mycorp.com')), ['operator'])
  assert.deepEqual(roles.of(who('admin@other.org')), ['admin'], 'an administrator is no operator by that')
  assert.deepEqual(roles.of(who('dev@eu.mycorp.com')), [])
  roles.require(who('dev@mycorp.com'), 'operator')
  const code = (role: 'operator' | 'admin') => {
    try {
      roles.require(who('x@y.org'), role)
    } catch (error) {
      return (error as PosternError).code
    }
  }
  assert.deepEqual([code('operator'), code('admin')], ['OPERATOR_REQUIRED', 'ADMIN_REQUIRED'])
})

it('nobody has a role by default', () => {
  const roles = readRoles({ operators: nobody, admins: nobody })
  assert.deepEqual(roles.of(who('dev@mycorp.com')), [])
})
