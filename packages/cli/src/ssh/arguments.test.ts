import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { PosternError } from '@postern/shared/errors'
import { hostOfSsh, hostsOfScp } from './arguments.ts'

describe('the host in the arguments of ssh', () => {
  for (const [words, host] of [
    [['db.example'], 'db.example'],
    [['me@db.example', 'ls', '-l'], 'db.example'],
    [['me@mycorp.com@db.example'], 'db.example'],
    [['-v', '-p', '22', 'db.example', '-N'], 'db.example'],
    [['-vvNp22', '-L', '1:localhost:2', 'db.example'], 'db.example'],
    [['-vL', '1:localhost:2', 'db.example'], 'db.example'],
    [['-oUser=me', '-o', 'Port=2', 'db.example'], 'db.example'],
    [['-l', 'me', '--', 'db.example', 'ls'], 'db.example'],
    [['ssh://me@db.example:2222/'], 'db.example'],
    [['ssh://db.example'], 'db.example'],
  ] as const) {
    it(words.join(' '), () => assert.equal(hostOfSsh(words), host))
  }

  it('is missing', () => {
    for (const words of [[], ['-v'], ['-p', 'db.example'], ['--']]) {
      assert.throws(
        () => hostOfSsh(words),
        (error) => error instanceof PosternError && error.code === 'USAGE_INVALID',
      )
    }
  })
})

describe('the hosts in the arguments of scp', () => {
  for (const [words, hosts] of [
    [['file', 'me@db.example:file'], ['db.example']],
    [['-r', '-P', '22', 'db.example:', './a:b'], ['db.example']],
    [
      ['-3', 'a.example:x', 'b.example:y'],
      ['a.example', 'b.example'],
    ],
    [['a.example:x', 'a.example:y', '.'], ['a.example']],
    [['scp://me@db.example:22/etc/motd', '.'], ['db.example']],
    [['--', '-file', 'db.example:x'], ['db.example']],
    [['-i', 'key:file', 'db.example:x', '.'], ['db.example']],
  ] as const) {
    it(words.join(' '), () => assert.deepEqual(hostsOfScp(words), hosts))
  }

  it('are missing', () => {
    for (const words of [[], ['a', 'b'], ['./a:b', '/c:d']]) {
      assert.throws(
        () => hostsOfScp(words),
        (error) => error instanceof PosternError && error.code === 'USAGE_INVALID',
      )
    }
  })
})
