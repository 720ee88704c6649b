import assert from 'node:assert/strict'
import { it } from 'node:test'
import { parseEmailAddress } from '@postern/shared/email'
import type { PosternError } from '@postern/shared/errors'
import { ROLES, type Role, readRoles } from './roles.ts'

const nobody = { emailDomains: [], emailAddresses: [], anyAuthenticated: false }
const who = (email: string) => ({ email: parseEmailAddress(email) })

it('roles are exactly what the configuration lists', () => {
  const roles = readRoles({
    operators: { ...nobody, emailDomains: ['mycorp.com'] },
    auditors: { ...nobody, emailAddresses: ['auditor@other.org'] },
    admins: { ...nobody, emailAddresses: ['admin@other.org'] },
  })
  assert.deepEqual(roles.of(who('dev@mycorp.com')), ['operator'])
  assert.deepEqual(roles.of(who('admin@other.org')), ['admin'], 'an administrator is no operator by that')
  assert.deepEqual(roles.of(who('dev@eu.mycorp.com')), [])
  roles.require(who('dev@mycorp.com'), 'operator')
  assert.deepEqual(roles.of(who('auditor@other.org')), ['auditor'])
  roles.require(who('auditor@other.org'), 'auditor')
  roles.require(who('admin@other.org'), 'auditor')
  const code = (role: Role, email = 'x@y.org') => {
    try {
      roles.require(who(email), role)
    } catch (error) {
      return (error as PosternError).code
    }
  }
  assert.deepEqual(
    ROLES.map((role) => code(role)),
    ['OPERATOR_REQUIRED', 'AUDITOR_REQUIRED', 'ADMIN_REQUIRED'],
  )
  assert.equal(code('admin', 'auditor@other.org'), 'ADMIN_REQUIRED', 'an auditor changes nothing')
})

it('nobody has a role by default', () => {
  const roles = readRoles({ operators: nobody, auditors: nobody, admins: nobody })
  assert.deepEqual(roles.of(who('dev@mycorp.com')), [])
})
