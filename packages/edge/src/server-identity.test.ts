import assert from 'node:assert/strict'
import { X509Certificate } from 'node:crypto'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { after, before, describe, it, mock } from 'node:test'
import type { PosternError } from '@postern/shared/errors'
import { Heard, TestLog } from '../test/edge-stage.ts'
import { createAuthorities } from './ca/authorities.ts'
import { describeEdgeCa, type EdgeCa } from './ca/edge-ca.ts'
import { issueEdgeCertificate } from './ca/issue-edge.ts'
import type { ServerIdentity } from './flow/rooms.ts'
import { openServerIdentity } from './server-identity.ts'

const DOMAIN = 'edge.example.com'
const DAY_MS = 86_400_000
const scratch = mkdtempSync(path.join(tmpdir(), 'postern-identity-'))

describe('the certificate of the edge', () => {
  let ca: EdgeCa
  before(async () => {
    const authority = (await createAuthorities(scratch, Date.now())).edge
    ca = describeEdgeCa(authority, [{ name: 'edge-ca', signsFrom: 0, authority, trustedUntil: null }])
  })
  after(() => rmSync(scratch, { recursive: true }))

  it('is issued by its own CA, and renewed without a restart', async () => {
    mock.timers.enable({ apis: ['setInterval'] })
    const clock = { now: Date.now() }
    const heard = new Heard()
    let renewed: ServerIdentity | undefined
    const log = new TestLog()
    await using identity = await openServerIdentity({ domain: DOMAIN, tls: undefined }, ca, {
      dataDir: scratch,
      clock: () => clock.now,
      log,
    })
    identity.onRenewed((next) => {
      renewed = next
      heard.tell()
    })
    const first = new X509Certificate(identity.current.cert)
    assert.equal(first.subjectAltName, `DNS:${DOMAIN}, DNS:*.${DOMAIN}`)
    assert.equal(identity.caFile, ca.signing.certificateFile)
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

  describe('in files', () => {
    const [certificateFile, keyFile] = [path.join(scratch, 'cert.pem'), path.join(scratch, 'key.pem')]
    const config = { domain: DOMAIN, tls: { kind: 'files' as const, certificateFile, keyFile } }
    const issue = () => issueEdgeCertificate(ca.signing, DOMAIN, Date.now())
    const write = ({ certificate, key }: { certificate: string; key: string }) => {
      writeFileSync(certificateFile, certificate)
      writeFileSync(keyFile, key)
    }
    const serialOf = ({ cert }: ServerIdentity) => new X509Certificate(cert).serialNumber.toLowerCase()

    it('is taken when they change, and kept when what they hold is no good', async () => {
      mock.timers.enable({ apis: ['setInterval'] })
      const log = new TestLog()
      const failed: string[] = []
      const first = await issue()
      write(first)
      const parts = {
        dataDir: scratch,
        clock: Date.now,
        log,
        countFailed: (code: string) => void failed.push(code),
      }
      await using identity = await openServerIdentity(config, ca, parts)
      assert.equal(serialOf(identity.current), first.serial)
      assert.equal(identity.caFile, undefined)
      const shown: string[] = []
      identity.onRenewed((next) => shown.push(serialOf(next)))
      const look = async (isOver: () => boolean) => {
        for (let turn = 0; turn < 10_000 && !isOver(); turn++) {
          mock.timers.tick(2_000)
          await new Promise(setImmediate)
        }
        assert.ok(isOver())
      }

      const second = await issue()
      write(second)
      await look(() => shown.length === 1)
      const bad: [string, { certificate: string; key: string }, RegExp][] = [
        ['another key', { ...second, key: first.key }, /does not belong to the key/],
        ['no certificate', { ...second, certificate: 'CERT' }, /is not a certificate in PEM/],
        ['other names', await issueEdgeCertificate(ca.signing, 'x.example.com', Date.now()), /not valid for/],
        ['expired', await issueEdgeCertificate(ca.signing, DOMAIN, Date.now() - 31 * DAY_MS), /has expired/],
        ['too long', { ...second, certificate: ' '.repeat(300_000) }, /more than 262144 bytes/],
      ]
      for (const [index, [what, pair, reason]] of bad.entries()) {
        write(pair)
        await look(() => failed.length === index + 1)
        const told = log.events('edge.certificate_renewal_failed').at(-1)?.error as PosternError
        assert.equal(told.code, 'TLS_FILES_INVALID', what)
        assert.match(told.message, reason, what)
      }
      const third = await issue()
      write(third)
      await look(() => shown.length === 2)
      assert.deepEqual(shown, [second.serial, third.serial])
      assert.equal(failed.length, bad.length)
      mock.timers.reset()
    })

    it('is refused at the start when it cannot be used', async () => {
      const parts = { dataDir: scratch, clock: Date.now, log: new TestLog() }
      const missing = {
        ...config,
        tls: { kind: 'files' as const, certificateFile, keyFile: path.join(scratch, 'missing.pem') },
      }
      await assert.rejects(openServerIdentity(missing, ca, parts), {
        code: 'CONFIG_INVALID',
        message: /missing\.pem cannot be read \(ENOENT\)/,
      })
      writeFileSync(certificateFile, 'CERT')
      await assert.rejects(openServerIdentity(config, ca, parts), {
        code: 'CONFIG_INVALID',
        message: /cert\.pem is not a certificate/,
      })
    })
  })
})
