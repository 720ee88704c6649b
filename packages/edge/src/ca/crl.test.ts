import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { after, before, describe, it } from 'node:test'
import { type Authorities, createAuthorities } from './authorities.ts'
import { checkCrl, crlToPem, signCrl } from './crl.ts'

const NOW = Date.UTC(2026, 0, 1)
const TIMES = { now: NOW, backdateMs: 300_000, lifetimeMs: 3_600_000 }
const REVOKED = ['0a', 'ff'.repeat(16)].map((serial) => ({ serial, revokedAt: NOW - 1_000 }))
const scratch = mkdtempSync(path.join(tmpdir(), 'postern-crl-'))
let own: Authorities
let foreign: Authorities

before(async () => {
  own = await createAuthorities(path.join(scratch, 'own'), NOW)
  foreign = await createAuthorities(path.join(scratch, 'foreign'), NOW)
})
after(() => rmSync(scratch, { recursive: true }))

describe('a list of revoked certificates', () => {
  it('is believed in both forms, from its first moment to its last', async () => {
    const der = await signCrl(own.client, REVOKED, TIMES)
    for (const bytes of [der, Buffer.from(crlToPem(der))]) {
      for (const now of [NOW - 300_000, NOW, NOW + 3_599_999]) {
        assert.equal((await checkCrl(bytes, [own.connector, own.client], now)).entries, 2)
      }
    }
  })

  it('is refused before, after, under another CA, and altered', async () => {
    const der = await signCrl(own.client, REVOKED, TIMES)
    const forged = await signCrl({ ...own.client, signingKey: foreign.client.signingKey }, REVOKED, TIMES)
    const refusals: [() => Promise<unknown>, string][] = [
      [() => checkCrl(der, [own.client], NOW - 300_001), 'CRL_INVALID'],
      [() => checkCrl(der, [own.client], NOW + 3_600_000), 'CRL_EXPIRED'],
      [() => checkCrl(der, [own.connector, foreign.client], NOW), 'CRL_INVALID'],
      [() => checkCrl(forged, [own.client], NOW), 'CRL_INVALID'],
      [() => checkCrl(Buffer.alloc(17 * 1024 * 1024), [own.client], NOW), 'CRL_INVALID'],
    ]
    for (const [refused, code] of refusals) await assert.rejects(refused, { code })
    const at = der.indexOf(Buffer.alloc(15, 0xff))
    const altered = Buffer.from(der)
    altered[at]! ^= 1
    await assert.rejects(checkCrl(altered, [own.client], NOW), { code: 'CRL_INVALID' })
  })

  it('has a number that grows with every second', async () => {
    const numbers = await Promise.all(
      [0, 1_000, 128_000].map(async (later) => {
        const der = await signCrl(own.client, [], { ...TIMES, now: NOW + later })
        const at = der.indexOf(Buffer.from('0603551d14', 'hex')) // id-ce-cRLNumber
        const [, , length] = der.subarray(at + 5 + 1)
        return der.subarray(at + 9, at + 9 + length!).readUIntBE(0, length!)
      }),
    )
    assert.deepEqual(
      numbers,
      [0, 1, 128].map((seconds) => NOW / 1_000 + seconds),
    )
  })
})
