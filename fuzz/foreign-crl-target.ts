import assert from 'node:assert/strict'
import { readForeignCrl } from '../packages/edge/src/ca/foreign-crl.ts'
import { makeCa, makeCrl } from '../packages/edge/test/foreign-ca.ts'
import { mutateBytes } from './mutate.ts'
import type { Target } from './target.ts'

/** The list of revoked certificates of somebody else's CA: what was altered has a wrong signature, wherever. */

const ca = await makeCa('Acme Root')
const crl = await makeCrl(ca, { serials: ['02', '7fffffffffffffff'] })
const der = Buffer.from(crl.replaceAll(/-----[^-]*-----|\s/g, ''), 'base64')
const toPem = (bytes: Uint8Array) =>
  `-----BEGIN X509 CRL-----\n${Buffer.from(bytes).toString('base64')}\n-----END X509 CRL-----\n`

export const FOREIGN_CRL_TARGET: Target = {
  name: 'foreign-crl',
  cases: 40_000,
  run(random) {
    const mutated = Buffer.from(mutateBytes(der, random))
    try {
      const { revoked } = readForeignCrl(toPem(mutated), ca.pem)
      // what is signed is as it was; the frame around it may be written otherwise
      assert.deepEqual([...revoked], ['2', '7fffffffffffffff'])
    } catch (error) {
      assert.equal((error as { code?: string }).code, 'CRL_INVALID', String(error))
    }
  },
}
