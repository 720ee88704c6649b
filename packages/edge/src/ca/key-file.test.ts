import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { createPublicKey, generateKeyPairSync, type KeyObject } from 'node:crypto'
import { chmodSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { after, beforeEach, describe, it } from 'node:test'
import { encodeKey, type KeyLock, readKey, relockKeys } from './key-file.ts'

const scratch = mkdtempSync(path.join(tmpdir(), 'postern-keys-'))
after(() => rmSync(scratch, { recursive: true }))

const KEYS: Record<string, KeyObject> = {
  ecdsa: generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey,
  ed25519: generateKeyPairSync('ed25519').privateKey,
  rsa: generateKeyPairSync('rsa', { modulusLength: 3_072 }).privateKey,
}
let folder: string

beforeEach(() => {
  folder = mkdtempSync(path.join(scratch, 'keys-'))
})

function makeLock(name: string, passphrase = `the passphrase of ${name}`): KeyLock {
  const file = path.join(folder, name)
  writeFileSync(file, passphrase)
  return { passphrase, file }
}

function write(name: string, text: string): string {
  const file = path.join(folder, name)
  writeFileSync(file, text, { mode: 0o600 })
  return file
}

const publicOf = (key: KeyObject) => createPublicKey(key).export({ type: 'spki', format: 'pem' })

describe('a key under a passphrase', () => {
  for (const [type, key] of Object.entries(KEYS)) {
    it(`comes back, here and in OpenSSL (${type})`, async () => {
      const lock = makeLock('passphrase')
      const file = write('ca.key', encodeKey(key, lock))
      assert.match(readFileSync(file, 'utf8'), /^-----BEGIN ENCRYPTED PRIVATE KEY-----\n/)
      assert.equal(publicOf(await readKey(file, lock)), publicOf(key))
      const read = execFileSync('openssl', ['pkey', '-in', file, '-passin', `file:${lock.file}`, '-pubout'])
      assert.equal(read.toString(), publicOf(key))
      const shape = execFileSync('openssl', ['asn1parse', '-in', file]).toString()
      for (const name of ['PBES2', 'scrypt', 'aes-256-cbc']) assert.match(shape, new RegExp(name))
    })
  }

  it('never looks the same twice', () => {
    const lock = makeLock('passphrase')
    assert.notEqual(encodeKey(KEYS.ecdsa!, lock), encodeKey(KEYS.ecdsa!, lock))
  })

  it('stays closed to another passphrase and to none, and damaged', async () => {
    const lock = makeLock('passphrase', 'pässphräse with umlauts')
    const pem = encodeKey(KEYS.ecdsa!, lock)
    const file = write('ca.key', pem)
    assert.equal(publicOf(await readKey(file, lock)), publicOf(KEYS.ecdsa!))
    await assert.rejects(readKey(file, makeLock('other')), {
      code: 'CA_KEY_LOCKED',
      message: /does not open/,
    })
    await assert.rejects(readKey(file, undefined), {
      code: 'CA_KEY_LOCKED',
      message: /no passphrase is named/,
    })
    writeFileSync(file, `${pem.slice(0, 80)}AAAA${pem.slice(84)}`)
    await assert.rejects(readKey(file, lock), { code: 'CA_KEY_LOCKED' })
  })

  it('may not be a plain one, and be read by nobody else', async () => {
    const file = write('ca.key', encodeKey(KEYS.ecdsa!, undefined))
    assert.equal(publicOf(await readKey(file, undefined)), publicOf(KEYS.ecdsa!))
    await assert.rejects(readKey(file, makeLock('passphrase')), {
      code: 'CONFIG_INVALID',
      message: /is not encrypted/,
    })
    chmodSync(file, 0o640)
    await assert.rejects(readKey(file, undefined), { code: 'CONFIG_INVALID', hint: `run: chmod 600 ${file}` })
  })
})

describe('keys that are locked anew', () => {
  it('change their passphrase, lose it, and keep their modes', async () => {
    const [first, second] = [makeLock('first'), makeLock('second')]
    const files = Object.entries(KEYS).map(([type, key]) => write(`${type}.key`, encodeKey(key, undefined)))
    assert.equal(await relockKeys(files, { from: undefined, to: first }), 3)
    assert.equal(await relockKeys(files, { from: undefined, to: first }), 0)
    assert.equal(await relockKeys(files, { from: first, to: second }), 3)
    for (const [index, key] of Object.values(KEYS).entries()) {
      assert.equal(publicOf(await readKey(files[index]!, second)), publicOf(key))
      assert.equal(statSync(files[index]!).mode & 0o777, 0o600)
    }
    assert.equal(await relockKeys(files, { from: second, to: undefined }), 3)
    assert.equal(publicOf(await readKey(files[0]!, undefined)), publicOf(KEYS.ecdsa!))
    assert.equal(readdirSync(folder).length, 5, 'nothing else is left')
  })

  it('go on where a crash left them', async () => {
    const [first, second] = [makeLock('first'), makeLock('second')]
    const files = [
      write('a.key', encodeKey(KEYS.ecdsa!, second)),
      write('b.key', encodeKey(KEYS.ed25519!, first)),
      write('c.key', encodeKey(KEYS.ecdsa!, undefined)),
    ]
    assert.equal(await relockKeys(files, { from: first, to: second }), 2)
    for (const file of files) await readKey(file, second)
  })

  it('are all as they were when one does not open', async () => {
    const [first, second] = [makeLock('first'), makeLock('second')]
    const files = [
      write('a.key', encodeKey(KEYS.ecdsa!, undefined)),
      write('b.key', encodeKey(KEYS.ed25519!, first)),
    ]
    const before = files.map((file) => readFileSync(file, 'utf8'))
    await assert.rejects(relockKeys(files, { from: undefined, to: second }), { code: 'CA_KEY_LOCKED' })
    assert.deepEqual(
      files.map((file) => readFileSync(file, 'utf8')),
      before,
    )
  })
})
