import assert from 'node:assert/strict'
import { generateKeyPairSync } from 'node:crypto'
import { describe, it } from 'node:test'
import { toSshPublicKey } from './ssh-key.ts'
import { parseKrl, writeKrl } from './ssh-krl.ts'

const ca = toSshPublicKey(generateKeyPairSync('ed25519').publicKey).blob
const KRL = {
  version: 1_800_000_000_123n,
  generatedAt: 1_800_000_000_000,
  certificates: [{ ca, serials: [1n, 7n, 2n ** 64n - 1n], keyIds: ['a@b.co', 'ü@b.co'] }],
}
const REFUSED = { code: 'KRL_INVALID' }

describe('the list of revoked keys', () => {
  it('is read as it was written', () => {
    assert.deepEqual(parseKrl(writeKrl(KRL), [ca]), { ...KRL, entries: 5 })
    const nothing = writeKrl({ ...KRL, certificates: [{ ca, serials: [], keyIds: [] }] })
    assert.deepEqual(parseKrl(nothing, [ca]), { ...KRL, certificates: [], entries: 0 })
  })

  it('is not written for every CA, with serial 0 or an empty key id', () => {
    const write = (change: object) =>
      writeKrl({ ...KRL, certificates: [{ ...KRL.certificates[0]!, ...change }] })
    assert.throws(() => write({ ca: Buffer.alloc(0) }), TypeError)
    assert.throws(() => write({ serials: [0n] }), TypeError)
    assert.throws(() => write({ keyIds: [''] }), TypeError)
  })

  it('is refused when it is cut anywhere', () => {
    const bytes = writeKrl(KRL)
    const header = writeKrl({ ...KRL, certificates: [] }).length
    for (let length = 0; length < bytes.length; length++) {
      if (length === header) continue // a whole list with nothing in it
      assert.throws(() => parseKrl(bytes.subarray(0, length), [ca]), REFUSED, `${length} bytes`)
    }
  })

  it('is refused with any other kind of section', () => {
    const header = writeKrl({ ...KRL, certificates: [] })
    for (const type of [0, 2, 3, 4, 5, 255]) {
      const bytes = Buffer.concat([header, Buffer.of(type, 0, 0, 0, 0)])
      assert.throws(() => parseKrl(bytes, [ca]), REFUSED, `section ${type}`)
    }
    const everyCa = Buffer.concat([header, Buffer.of(1, 0, 0, 0, 8), Buffer.alloc(8)])
    assert.throws(() => parseKrl(everyCa, [ca, Buffer.alloc(0)]), { message: /another CA/ })
  })
})
