import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { after, before, describe, it } from 'node:test'
import { sshFingerprint } from '@postern/shared/certs/ssh-key'
import { formatPrivateKey, generateSshKey, readPublicBlob } from './key.ts'

let folder: string
before(() => {
  folder = mkdtempSync(path.join(tmpdir(), 'postern-key-'))
})
after(() => rmSync(folder, { recursive: true, force: true }))

function keygen(...args: string[]): string {
  const { status, stdout, stderr } = spawnSync('ssh-keygen', args, { encoding: 'utf8' })
  assert.equal(status, 0, stderr)
  return stdout.trim()
}

describe('ssh keys', () => {
  for (const type of ['ed25519', 'ecdsa'] as const) {
    // an ECDSA key in a few hundred has leading zeros somewhere
    it(`${type}: ssh-keygen reads the file and finds the same public key`, () => {
      for (let round = 0; round < 20; round++) {
        const key = generateSshKey(type)
        const file = path.join(folder, `${type}-${round}`)
        const text = formatPrivateKey(key, 'crimson-thunder-8434.edge.localhost')
        writeFileSync(file, text, { mode: 0o600 })
        chmodSync(file, 0o600)
        assert.equal(keygen('-y', '-f', file).split(' ').slice(0, 2).join(' '), key.publicLine)
        assert.equal(keygen('-l', '-f', file).split(' ')[1], sshFingerprint(key.publicBlob))
        assert.deepEqual(readPublicBlob(text), key.publicBlob)
      }
    })
  }

  it('takes nothing else for a key of ours', () => {
    for (const text of [
      '',
      'ssh-ed25519 AAAA',
      '-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n',
      `-----BEGIN OPENSSH PRIVATE KEY-----\n${Buffer.concat([Buffer.from('openssh-key-v1\0'), Buffer.from('ffffffff', 'hex')]).toString('base64')}\n-----END OPENSSH PRIVATE KEY-----\n`,
      '-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n',
    ]) {
      assert.equal(readPublicBlob(text), undefined)
    }
  })
})
