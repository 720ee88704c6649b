import assert from 'node:assert/strict'
import { X509Certificate } from 'node:crypto'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { after, before, describe, it, mock } from 'node:test'
import { PosternError } from '@postern/shared/errors'
import { Heard, TestLog } from '../test/edge-stage.ts'
import { type Authority, createAuthorities } from './ca/authorities.ts'
import type { ServerIdentity } from './flow/rooms.ts'
import { openServerIdentity } from './server-identity.ts'

const DOMAIN = 'edge.example.com'
const DAY_MS = 86_400_000
const scratch = mkdtempSync(path.join(tmpdir(), 'postern-identity-'))

describe('the certificate of the edge', () => {
  let authority: Authority
  before(async () => {
    authority = (await createAuthorities(scratch, Date.now())).edge
  })
  after(() => rmSync(scratch, { recursive: true }))

  it('is issued by its own CA, and renewed without a restart', async () => {
    mock.timers.enable({ apis: ['setInterval'] })
    const clock = { now: Date.now() }
    const heard = new Heard()
    let renewed: ServerIdentity | undefined
    const log = new TestLog()
    using identity = await openServerIdentity({ domain: DOMAIN, tls: undefined }, authority, {
      clock: () => clock.now,
      log,
    })
    identity.onRenewed((next) => {
      renewed = next
      heard.tell()
    })
    const first = new X509Certificate(identity.current.cert)
    assert.equal(first.subjectAltName, `DNS:${DOMAIN}, DNS:*.${DOMAIN}`)
    assert.equal(identity.caFile, authority.certificateFile)
    mock.timers.tick(3_600_000)
    clock.now += 21 * DAY_MS
    mock.timers.tick(3_600_000)
    const next = await heard.until(
      () => renewed,
      () => 'the renewal',
    )
    assert.notEqual(new X509Certificate(next.cert).serialNumber, first.serialNumber)
    assert.equal(log.events('edge.certificate_renewed').length, 1)
    mock.timers.reset()
  })

  it('is read from files where there are some', async () => {
    const [certificateFile, keyFile] = [path.join(scratch, 'cert.pem'), path.join(scratch, 'key.pem')]
    writeFileSync(certificateFile, 'CERT')
    writeFileSync(keyFile, 'KEY')
    const parts = { clock: Date.now, log: new TestLog() }
    const config = { domain: DOMAIN, tls: { certificateFile, keyFile } }
    using identity = await openServerIdentity(config, authority, parts)
    assert.deepEqual(identity.current, { cert: 'CERT', key: 'KEY' })
    assert.equal(identity.caFile, undefined)
    const missing = { ...config, tls: { certificateFile, keyFile: path.join(scratch, 'missing.pem') } }
    await assert.rejects(openServerIdentity(missing, authority, parts), (error: unknown) => {
      assert.ok(error instanceof PosternError)
      assert.equal(error.code, 'CONFIG_INVALID')
      assert.match(error.message, /missing\.pem cannot be read \(ENOENT\)/)
      return true
    })
  })
})
