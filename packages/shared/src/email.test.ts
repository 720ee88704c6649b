import assert from 'node:assert/strict'
import { test } from 'node:test'
import { domainOf, parseEmailAddress, parseEmailDomain } from './email.ts'

test('folds addresses and domains to lower case', () => {
  assert.equal(parseEmailAddress('Ann.Other+db@MyCorp.COM'), 'ann.other+db@mycorp.com')
  assert.equal(parseEmailDomain('MyCorp.COM'), 'mycorp.com')
  assert.equal(parseEmailDomain('xn--mnchen-3ya.example'), 'xn--mnchen-3ya.example')
  assert.equal(domainOf(parseEmailAddress('ann@mycorp.com')), 'mycorp.com')
})

const BAD_DOMAINS = [
  ...['', '*', '*.mycorp.com', '@mycorp.com', 'mycorp.com.', '.mycorp.com', 'mycorp..com', 'mycorp'],
  ...['my corp.com', 'mycorp.com,other.com', 'münchen.example', 'mycorp.com\n', 'mycorp.com\0', '10.0.0.1'],
  ...['-my.com', 'my-.com', 'my_corp.com', `${'a'.repeat(64)}.com`, `${'abc.'.repeat(64)}com`, 'mycorp.c'],
]

test('refuses domains with wildcards, wrong letters, lengths and forms', () => {
  for (const domain of BAD_DOMAINS) {
    assert.throws(() => parseEmailDomain(domain), { code: 'DOMAIN_INVALID' }, JSON.stringify(domain))
    assert.throws(
      () => parseEmailAddress(`ann@${domain}`),
      { code: 'ADDRESS_INVALID' },
      JSON.stringify(domain),
    )
  }
})

test('refuses addresses that another reader could take for somebody else', () => {
  const bad = [
    ...['', 'ann', '@mycorp.com', 'ann@', 'ann@evil.com@mycorp.com', '"a@b"@mycorp.com', 'a b@mycorp.com'],
    ...['.ann@mycorp.com', 'ann.@mycorp.com', 'a..b@mycorp.com', 'Ann <ann@mycorp.com>', 'ann@mycorp.com '],
    ...['änn@mycorp.com', 'ann\0@mycorp.com', 'ann,OU=admin@mycorp.com', `${'a'.repeat(65)}@mycorp.com`],
    // the Kelvin sign lower-cases to a plain k
    ...['\u212Aim@mycorp.com', 'kim@my\u212Aorp.com'],
  ]
  for (const address of bad) {
    assert.throws(() => parseEmailAddress(address), { code: 'ADDRESS_INVALID' }, JSON.stringify(address))
  }
})
