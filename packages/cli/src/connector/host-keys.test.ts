import assert from 'node:assert/strict'
import { generateKeyPairSync } from 'node:crypto'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { describe, it } from 'node:test'
import { formatSshPublicKey, toSshPublicKey } from '@postern/shared/certs/ssh-key'
import { readScan, scanHostKeys } from './host-keys.ts'

const newKey = () => formatSshPublicKey(toSshPublicKey(generateKeyPairSync('ed25519').publicKey))

describe('what ssh-keyscan prints', () => {
  it('is read for its keys, in an order of their own', () => {
    const [one, two] = [newKey(), newKey()].sort()
    const text = `# 10.0.0.5:22 SSH-2.0-OpenSSH_9.2\n[10.0.0.5]:22 ${two}\n10.0.0.5 ${one}\n10.0.0.5 ${one}\n`
    assert.deepEqual(readScan(text), [one, two])
  })

  it('lines of anything else are passed over', () => {
    const key = newKey()
    const blob = key.split(' ')[1]!
    for (const line of [
      ...[`host ssh-rsa ${blob}`, `host ssh-dss ${blob}`, `host ${key} comment`, key],
      ...[
        `host ssh-ed25519 ${blob.slice(0, -4)}`,
        `host ssh-ed25519 ${blob}=`,
        `# ${key}`,
        `@revoked ${key} x`,
      ],
    ]) {
      assert.deepEqual(readScan(`${line}\n`), [], line)
    }
    assert.equal(readScan(Array.from({ length: 20 }, () => `host ${newKey()}\n`).join('')).length, 8)
  })
})

it('a service that does not speak ssh shows no key', async () => {
  const server = createServer().listen(0, '127.0.0.1')
  await new Promise((resolve) => server.once('listening', resolve))
  const { port } = server.address() as AddressInfo
  await assert.rejects(scanHostKeys({ host: '127.0.0.1', port }), { code: 'SERVICE_UNREACHABLE' })
  server.close()
  server.closeAllConnections()
})
