import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parseLocal } from './listen.ts'

test('a local address is a port, or an IP address with one', () => {
  const cases: [string, string, number][] = [
    ['5432', '127.0.0.1', 5432],
    ['0', '127.0.0.1', 0],
    ['localhost:65535', '127.0.0.1', 65_535],
    ['127.0.0.2:1', '127.0.0.2', 1],
    ['[::1]:5432', '::1', 5432],
  ]
  for (const [text, address, port] of cases) assert.deepEqual(parseLocal(text), { address, port }, text)
})

test('anything else is refused, with what to write', () => {
  const texts = [
    '',
    ':',
    '65536',
    '-1',
    '54.32',
    'db:5432',
    '::1:5432',
    '[127.0.0.1]:1',
    '[::1]',
    ':5432',
    '*:1',
    ' 1',
  ]
  for (const text of texts) assert.throws(() => parseLocal(text), { code: 'USAGE_INVALID' }, text)
})
