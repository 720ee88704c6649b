import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parseEmailAddress } from '@postern/shared/email'
import type { AllowList } from '@postern/shared/identity'
import { evaluate } from './evaluate.ts'

const nobody: AllowList = { emailDomains: [], emailAddresses: [], anyAuthenticated: false }
const rows: [string, AllowList, string, boolean, string][] = [
  ['empty list', nobody, 'a@mycorp.com', false, 'no rule admits'],
  ['domain', { ...nobody, emailDomains: ['mycorp.com'] }, 'A@MyCorp.com', true, 'email domain mycorp.com'],
  ['sub-domain', { ...nobody, emailDomains: ['mycorp.com'] }, 'a@eu.mycorp.com', false, 'no rule admits'],
  ['parent domain', { ...nobody, emailDomains: ['eu.mycorp.com'] }, 'a@mycorp.com', false, 'no rule admits'],
  [
    'look-alike before',
    { ...nobody, emailDomains: ['mycorp.com'] },
    'a@evil-mycorp.com',
    false,
    'no rule admits',
  ],
  [
    'look-alike after',
    { ...nobody, emailDomains: ['mycorp.com'] },
    'a@mycorp.com.evil',
    false,
    'no rule admits',
  ],
  [
    'address',
    { ...nobody, emailAddresses: ['c@gmail.com'] },
    'c@gmail.com',
    true,
    'email address c@gmail.com',
  ],
  [
    'plus-tag is another address',
    { ...nobody, emailAddresses: ['c@gmail.com'] },
    'c+x@gmail.com',
    false,
    'no rule admits',
  ],
  ['any authenticated', { ...nobody, anyAuthenticated: true }, 'x@y.org', true, 'any authenticated'],
]

for (const [name, allow, email, allowed, rule] of rows) {
  test(`evaluate: ${name}`, () => {
    assert.deepEqual(evaluate(allow, { email: parseEmailAddress(email) }), { allowed, rule })
  })
}
