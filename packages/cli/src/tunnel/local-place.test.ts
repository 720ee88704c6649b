import assert from 'node:assert/strict'
import { test } from 'node:test'
import { formatLocal, type LocalPlace, parseLocal, refusePublicAddress } from './local-place.ts'

test('a local place is a port, an IP address with one, or a file', () => {
  const cases: [string, LocalPlace][] = [
    ['5432', { address: '127.0.0.1', port: 5432 }],
    ['0', { address: '127.0.0.1', port: 0 }],
    ['localhost:65535', { address: '127.0.0.1', port: 65_535 }],
    ['127.0.0.2:1', { address: '127.0.0.2', port: 1 }],
    ['[::1]:5432', { address: '::1', port: 5432 }],
    ['unix:/run/db.sock', { path: '/run/db.sock' }],
    ['unix:db.sock', { path: '/srv/db.sock' }],
    ['unix:../a b:c', { path: '/a b:c' }],
  ]
  for (const [text, place] of cases) {
    assert.deepEqual(parseLocal(text, '/srv'), place, text)
    assert.deepEqual(parseLocal(formatLocal(place), '/elsewhere'), place, text)
  }
})

test('anything else is refused, with what to write', () => {
  const texts = [
    ...[
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
    ],
    ...[
      'unix:',
      'unix:folder/',
      'unix:a\nb',
      'unix:a\0b',
      'UNIX:a',
      `unix:${'x'.repeat(200)}`,
      '/run/db.sock',
    ],
  ]
  for (const text of texts) assert.throws(() => parseLocal(text), { code: 'USAGE_INVALID' }, text)
})

test('an address that other machines reach is refused, and the message says what allows it', () => {
  for (const text of ['0.0.0.0:1', '[::]:1', '192.0.2.1:1']) {
    assert.throws(() => refusePublicAddress(parseLocal(text), '--unsafe-listen-all'), {
      code: 'USAGE_INVALID',
      hint: /--unsafe-listen-all/,
    })
  }
  for (const text of ['1', '127.9.9.9:1', '[::1]:1', 'unix:x']) refusePublicAddress(parseLocal(text), '')
})
