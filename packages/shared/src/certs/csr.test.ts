import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { createPublicKey, generateKeyPairSync } from 'node:crypto'
import { test } from 'node:test'
import { createCsr } from './csr.ts'
import { toPem } from './der.ts'

function openssl(args: string[], input: string) {
  const { status, stdout, stderr } = spawnSync('openssl', args, { input, encoding: 'utf8' })
  assert.equal(status, 0, stderr)
  return stdout + stderr
}

test('openssl verifies the request and finds the key, an empty subject and no attributes', () => {
  // often enough to meet signatures of every length
  for (let round = 0; round < 16; round++) {
    const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
    const csr = createCsr(privateKey)
    const said = openssl(['req', '-verify', '-noout', '-subject', '-text'], csr)
    assert.match(said, /verify OK/)
    assert.match(said, /^subject=$/m)
    assert.match(said, /Attributes:\s+\(none\)/)
    const pem = openssl(['req', '-pubkey', '-noout'], csr)
    assert.ok(createPublicKey(pem).equals(publicKey))
  }
})

test('PEM lines are 64 characters long', () => {
  const lines = toPem('X', Buffer.alloc(100)).split('\n')
  assert.deepEqual(
    [lines[0], lines[1]?.length, lines.at(-2), lines.at(-1)],
    ['-----BEGIN X-----', 64, '-----END X-----', ''],
  )
})
