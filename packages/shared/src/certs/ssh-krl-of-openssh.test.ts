import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { after, describe, it } from 'node:test'
import { parseSshPublicKey } from './ssh-key.ts'
import { EMPTY_KRL, parseKrl } from './ssh-krl.ts'
import { sshString, sshUint32, sshUint64 } from './ssh-wire.ts'

const folder = mkdtempSync(path.join(tmpdir(), 'postern-krl-'))
after(() => rmSync(folder, { recursive: true, force: true }))

const at = (name: string) => path.join(folder, name)

function keygen(...args: string[]): void {
  const { status, stderr } = spawnSync('ssh-keygen', args, { encoding: 'utf8' })
  assert.equal(status, 0, stderr)
}

function makeKey(name: string): Buffer {
  keygen('-q', '-t', 'ed25519', '-N', '', '-f', at(name))
  return parseSshPublicKey(readFileSync(at(`${name}.pub`), 'utf8')).blob
}

const ca = makeKey('ca')
const other = makeKey('other')

/** What OpenSSH writes for this specification. */
function makeKrl(specification: string, caName = 'ca', version = 7): Buffer {
  writeFileSync(at('specification'), specification)
  keygen('-q', '-k', '-z', String(version), '-s', at(`${caName}.pub`), '-f', at('krl'), at('specification'))
  return readFileSync(at('krl'))
}

/** By hand: what OpenSSH would not write. */
function compose(sections: readonly [type: number, body: Buffer][], formatVersion = 1): Buffer {
  return Buffer.concat([
    Buffer.from('SSHKRL\n\0'),
    sshUint32(formatVersion),
    ...[1n, 2n, 0n].map(sshUint64),
    sshString(''),
    sshString('comment'),
    ...sections.flatMap(([type, body]) => [Buffer.of(type), sshString(body)]),
  ])
}

const certificates = (caBlob: Buffer, type: number, body: Buffer): [number, Buffer] => [
  1,
  Buffer.concat([sshString(caBlob), sshString(''), Buffer.of(type), sshString(body)]),
]

const refused = (bytes: Buffer, why: RegExp) =>
  assert.throws(() => parseKrl(bytes, [ca]), { code: 'KRL_INVALID', message: why })

describe('a list of revoked certificates', () => {
  it('is read as OpenSSH writes it: serials, ranges, bitmaps, key ids', () => {
    assert.deepEqual(parseKrl(makeKrl('serial: 5\n'), [ca]).entries, 1)
    assert.equal(parseKrl(makeKrl('serial: 5\nserial: 18446744073709551615\n'), [ca]).entries, 2)
    assert.equal(parseKrl(makeKrl('serial: 10-5000000\n'), [ca]).entries, 1)
    assert.equal(parseKrl(makeKrl('id: ann@mycorp.com\nid: bob@mycorp.com\n'), [ca]).entries, 2)
    const scattered = Array.from({ length: 400 }, (_, index) => `serial: ${1 + index * 3}\n`).join('')
    assert.ok(parseKrl(makeKrl(scattered), [ca]).entries >= 1)
    assert.equal(parseKrl(makeKrl('serial: 5\n', 'ca', 812), [ca]).version, 812n)
  })

  it('may be empty', () => {
    keygen('-q', '-k', '-f', at('empty'))
    assert.equal(parseKrl(readFileSync(at('empty')), [ca]).entries, 0)
    writeFileSync(at('ours'), EMPTY_KRL)
    keygen('-Q', '-f', at('ours'), at('other.pub'))
    assert.deepEqual(parseKrl(EMPTY_KRL, [ca]), {
      version: 0n,
      generatedAt: 0,
      certificates: [],
      entries: 0,
    })
  })

  it('names certificates of our CA only', () => {
    refused(makeKrl('serial: 5\n', 'other'), /another CA/)
    refused(compose([certificates(Buffer.alloc(0), 0x20, sshUint64(5n))]), /another CA/)
    assert.equal(parseKrl(makeKrl('serial: 5\n', 'other'), [other]).entries, 1)
  })

  it('names no key, and no certificate by its hash', () => {
    for (const line of ['key', 'sha1', 'hash']) {
      const key = readFileSync(at('other.pub'), 'utf8')
      const entry = line === 'hash' ? `hash: ${fingerprint('other')}` : `${line}: ${key}`
      refused(makeKrl(`${entry}\n`), /more than certificates/)
    }
    refused(compose([[4, Buffer.alloc(8)]]), /more than certificates/)
  })

  it('is whole, and of this format', () => {
    const whole = makeKrl('serial: 5\nid: ann@mycorp.com\n')
    for (let length = 0; length < whole.length; length++) {
      try {
        // cut between two sections it is a list, only a shorter one
        assert.ok(parseKrl(whole.subarray(0, length), [ca]).entries < parseKrl(whole, [ca]).entries)
      } catch (error) {
        assert.equal((error as { code?: string }).code, 'KRL_INVALID', String(error))
      }
    }
    refused(Buffer.concat([whole, Buffer.of(1)]), /cut off/)
    refused(compose([], 2), /format version/)
    refused(Buffer.from('<html>'), /does not begin|cut off/)
    refused(Buffer.alloc(9 * 1024 * 1024), /too large/)
  })

  it('has no entry that means nothing, or everything', () => {
    refused(compose([certificates(ca, 0x20, Buffer.alloc(0))]), /wrong length/)
    refused(compose([certificates(ca, 0x20, Buffer.alloc(8))]), /serial 0/)
    refused(compose([certificates(ca, 0x20, Buffer.alloc(7, 1))]), /cut off/)
    refused(compose([certificates(ca, 0x21, Buffer.concat([sshUint64(9n), sshUint64(8n)]))]), /range/)
    refused(compose([certificates(ca, 0x23, sshString(''))]), /key id/)
    refused(compose([certificates(ca, 0x39, Buffer.alloc(8))]), /unknown kind/)
  })
})

function fingerprint(name: string): string {
  const { stdout } = spawnSync('ssh-keygen', ['-lf', at(`${name}.pub`)], { encoding: 'utf8' })
  return stdout.split(' ')[1]!
}
