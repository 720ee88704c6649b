import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { X509Certificate } from 'node:crypto'
import { chmodSync, copyFileSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { after, describe, it } from 'node:test'
import { AUTHORITY_KINDS, createAuthorities, loadAuthorities, openAuthorities } from './authorities.ts'

const scratch = mkdtempSync(path.join(tmpdir(), 'postern-ca-'))
after(() => rmSync(scratch, { recursive: true }))
const newFolder = () => mkdtempSync(path.join(scratch, 'data-'))

describe('authorities', () => {
  it('are one self-signed root per kind, under names and keys of their own', async () => {
    const authorities = await createAuthorities(newFolder(), Date.now())
    const certificates = AUTHORITY_KINDS.map((kind) => new X509Certificate(authorities[kind].certificatePem))
    assert.equal(new Set(certificates.map((certificate) => certificate.subject)).size, AUTHORITY_KINDS.length)
    assert.equal(
      new Set(AUTHORITY_KINDS.map((kind) => authorities[kind].certificate.serialNumber)).size,
      AUTHORITY_KINDS.length,
    )
    for (const kind of AUTHORITY_KINDS) {
      const { certificateFile } = authorities[kind]
      execFileSync('openssl', ['verify', '-x509_strict', '-CAfile', certificateFile, certificateFile])
      const text = execFileSync('openssl', ['x509', '-in', certificateFile, '-noout', '-text']).toString()
      const below = kind === 'edge' ? 1 : 0 // it signs its successor
      assert.match(text, new RegExp(`Basic Constraints: critical\\s+CA:TRUE, pathlen:${below}\n`))
      assert.match(text, /Key Usage: critical\s+Certificate Sign, CRL Sign/)
      assert.match(text, new RegExp(`CN = Postern ${kind} CA [0-9a-f]{16}\\n`))
    }
  })

  it('lie in files that only their owner reads', async () => {
    const folder = newFolder()
    await createAuthorities(folder, Date.now())
    const files = readdirSync(path.join(folder, 'ca'))
    assert.equal(files.length, 2 * AUTHORITY_KINDS.length)
    for (const file of files) assert.equal(statSync(path.join(folder, 'ca', file)).mode & 0o777, 0o600, file)
    assert.equal(statSync(path.join(folder, 'ca')).mode & 0o777, 0o700)
  })

  it('are never overwritten', async () => {
    const folder = newFolder()
    const first = await createAuthorities(folder, Date.now())
    await assert.rejects(createAuthorities(folder, Date.now()), {
      code: 'CONFIG_INVALID',
      message: /has certificate authorities already/,
    })
    assert.equal(readFileSync(first.client.certificateFile, 'utf8'), first.client.certificatePem)
    assert.deepEqual(readdirSync(folder), ['ca'], 'no draft is left behind')
  })

  it('are the same for two that open an empty folder at once', async () => {
    const folder = newFolder()
    const [one, two] = await Promise.all([1, 2].map(() => openAuthorities(folder, Date.now())))
    assert.equal(one!.edge.certificatePem, two!.edge.certificatePem)
    assert.equal((await openAuthorities(folder, Date.now())).edge.certificatePem, one!.edge.certificatePem)
  })

  it('of an edge that is older than a kind get that kind, and keep the others', async () => {
    const folder = newFolder()
    const before = await createAuthorities(folder, Date.now())
    const file = (name: string) => path.join(folder, 'ca', `workload-ca.${name}`)
    for (const name of ['key', 'pem']) {
      rmSync(file(name))
      rmSync(path.join(folder, 'ca', `server-ca.${name}`))
    }
    const [one, two] = await Promise.all([1, 2].map(() => openAuthorities(folder, Date.now())))
    assert.equal(one!.workload.certificatePem, two!.workload.certificatePem)
    assert.notEqual(one!.workload.certificatePem, before.workload.certificatePem)
    assert.equal(one!.server.certificatePem, two!.server.certificatePem)
    assert.notEqual(one!.server.certificatePem, before.server.certificatePem)
    assert.equal(one!.client.certificatePem, before.client.certificatePem)
    for (const name of ['key', 'pem']) assert.equal(statSync(file(name)).mode & 0o777, 0o600)
    // it died between the two files
    rmSync(file('pem'))
    const again = await openAuthorities(folder, Date.now())
    assert.deepEqual(
      again.workload.publicKey.export({ format: 'jwk' }),
      one!.workload.publicKey.export({ format: 'jwk' }),
    )
    // but a key that was lost is not made anew: what it signed would be worthless without anybody knowing
    rmSync(file('key'))
    await assert.rejects(openAuthorities(folder, Date.now()), { code: 'CONFIG_INVALID' })
  })

  it('refuse a key that others can read, and one that belongs to another kind', async () => {
    const folder = newFolder()
    await createAuthorities(folder, Date.now())
    const key = path.join(folder, 'ca', 'client-ca.key')
    chmodSync(key, 0o640)
    await assert.rejects(loadAuthorities(folder), { code: 'CONFIG_INVALID', hint: `run: chmod 600 ${key}` })
    chmodSync(key, 0o600)
    copyFileSync(path.join(folder, 'ca', 'edge-ca.key'), key)
    await assert.rejects(loadAuthorities(folder), { message: /the key belongs to another certificate/ })
    rmSync(key)
    await assert.rejects(loadAuthorities(folder), { code: 'CONFIG_INVALID', message: /cannot be read/ })
  })
})
