import assert from 'node:assert/strict'
import { test } from 'node:test'
import { describeTarget, parseTarget, type Target } from './target.ts'

test('host and port, IPv6 in brackets, and sockets of this machine', () => {
  const good: [string, Target][] = [
    ['db.internal:5432', { host: 'db.internal', port: 5_432 }],
    ['localhost:1', { host: 'localhost', port: 1 }],
    ['my_db-1.internal.:65535', { host: 'my_db-1.internal.', port: 65_535 }],
    ['10.0.0.5:22', { host: '10.0.0.5', port: 22 }],
    ['[::1]:5432', { host: '::1', port: 5_432 }],
    ['[2001:db8::7]:22', { host: '2001:db8::7', port: 22 }],
    ['[fe80::1%eth0]:22', { host: 'fe80::1%eth0', port: 22 }],
    ['unix:/run/postgresql/.s.PGSQL.5432', { path: '/run/postgresql/.s.PGSQL.5432' }],
    ['unix:/with a space:80', { path: '/with a space:80' }],
  ]
  for (const [text, target] of good) {
    assert.deepEqual(parseTarget(text), target)
    assert.equal(describeTarget(target), text)
  }
})

test('anything else is named with what is wrong with it', () => {
  const bad: [string, RegExp][] = [
    ['', /has no port/],
    ['db.internal', /has no port/],
    ['5432', /has no port/],
    [':5432', /neither a host name nor an IP address/],
    ['db:', /is no target/],
    ['db:0', /port 0/],
    ['db:65536', /port 65536/],
    ['db:123456', /is no target/],
    ['db:http', /has no port/],
    ['::1', /without brackets/],
    ['::1:5432', /without brackets/],
    ['2001:db8::7:22', /without brackets/],
    ['[::1]', /has no port/],
    ['[]:5432', /no IPv6 address in its brackets/],
    ['[localhost]:5432', /no IPv6 address in its brackets/],
    ['[10.0.0.5]:5432', /no IPv6 address in its brackets/],
    ['10.0.0.256:22', /neither a host name nor an IP address/],
    ['a b:22', /neither a host name nor an IP address/],
    ['-x:22', /neither a host name nor an IP address/],
    [`${'x'.repeat(254)}:22`, /neither a host name nor an IP address/],
    ['postgres://db:5432', /is a URL/],
    ['unix:', /no absolute path/],
    ['unix:run/db.sock', /no absolute path/],
    ['unix:/run/\0db', /NUL/],
    [`unix:/${'x'.repeat(200)}`, /more than \d+ bytes/],
  ]
  for (const [text, why] of bad) {
    assert.throws(
      () => parseTarget(text),
      (error: Error & { code: string; hint: string }) =>
        error.code === 'USAGE_INVALID' && why.test(error.message) && error.hint.includes('HOST:PORT'),
      JSON.stringify(text),
    )
  }
})
