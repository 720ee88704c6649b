import assert from 'node:assert/strict'
import { test } from 'node:test'
import { collectList, parseAllowList, parseEdgeOrigin, parsePort, requireSomebody } from './options.ts'

test('an edge is an https origin and nothing more', () => {
  assert.equal(parseEdgeOrigin('https://Edge.example.com/'), 'https://edge.example.com')
  assert.equal(parseEdgeOrigin('https://edge.localhost:8443'), 'https://edge.localhost:8443')
  for (const text of [
    'edge.example.com',
    'http://edge.example.com',
    'https://e/x',
    'https://e/?a',
    'https://u:p@e/',
    '',
  ]) {
    assert.throws(() => parseEdgeOrigin(text), { code: 'USAGE_INVALID' }, text)
  }
})

test('a port is a number from 1 to 65535', () => {
  assert.equal(parsePort('65535'), 65_535)
  for (const text of ['0', '65536', '-1', '22.5', '22a', '', ' 22', '%p']) {
    assert.throws(() => parsePort(text), { code: 'USAGE_INVALID' }, text)
  }
})

test('lists: commas, repeated options, both spellings, upper case folded, twins dropped', () => {
  assert.deepEqual(collectList(' a, b,,', ['x']), ['x', 'a', 'b'])
  assert.deepEqual(
    parseAllowList({
      allowedEmailDomains: ['MyCorp.com', 'mycorp.com'],
      allowed_email_domains: ['example.org'],
      allowed_email_addresses: ['A@example.com'],
    }),
    {
      emailDomains: ['mycorp.com', 'example.org'],
      emailAddresses: ['a@example.com'],
      anyAuthenticated: false,
    },
  )
  assert.equal(parseAllowList({}), undefined)
})

test('every bad entry is named at once', () => {
  assert.throws(
    () =>
      parseAllowList({
        allowedEmailDomains: ['*.x', 'ok.example'],
        allowedEmailAddresses: ['nobody', '@x.y'],
      }),
    (error: Error) => ['"*.x"', '"nobody"', '"@x.y"'].every((entry) => error.message.includes(entry)),
  )
})

test('a list that admits nobody is refused', () => {
  assert.throws(() => requireSomebody(parseAllowList({ allowedEmailDomains: [] })!), {
    code: 'ALLOW_LIST_EMPTY',
  })
  assert.ok(requireSomebody(parseAllowList({ allowAnyAuthenticated: true })!))
})
