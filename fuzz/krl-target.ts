import assert from 'node:assert/strict'
import { generateKeyPairSync } from 'node:crypto'
import { toSshPublicKey } from '@postern/shared/certs/ssh-key'
import { parseKrl, writeKrl } from '@postern/shared/certs/ssh-krl'
import { sshString, sshUint32, sshUint64 } from '@postern/shared/certs/ssh-wire'
import { mutateBytes } from './mutate.ts'
import type { Random } from './random.ts'
import type { Target } from './target.ts'

/** The list of revoked certificates, as a server reads it before its sshd does: a bad one locks everybody out. */

const CA = toSshPublicKey(generateKeyPairSync('ed25519').publicKey).blob
const OTHER = toSshPublicKey(generateKeyPairSync('ed25519').publicKey).blob
const NAME = Buffer.from('ann@mycorp.com')

function writeList(random: Random): { bytes: Buffer; entries: number; isForeign: boolean } {
  const sections: Buffer[] = []
  let entries = 0
  let isForeign = false
  for (let count = random.below(3); count > 0; count--) {
    const isOther = random.oneIn(8)
    isForeign ||= isOther
    const parts = [sshString(isOther ? OTHER : CA), sshString('')]
    for (let kinds = random.below(3); kinds > 0; kinds--) {
      const many = 1 + random.below(4)
      entries += many
      const isSerial = random.oneIn(2)
      const items = Array.from({ length: many }, () =>
        isSerial ? sshUint64(BigInt(1 + random.below(1e9))) : sshString(NAME),
      )
      parts.push(Buffer.of(isSerial ? 0x20 : 0x23), sshString(Buffer.concat(items)))
    }
    sections.push(Buffer.of(1), sshString(Buffer.concat(parts)))
  }
  const head = [Buffer.from('SSHKRL\n\0'), sshUint32(1), ...[7n, 8n, 0n].map(sshUint64)]
  const bytes = Buffer.concat([...head, sshString(''), sshString(''), ...sections])
  return { bytes, entries, isForeign }
}

/** What the edge writes is what a server reads: every serial and key id once, in order, and nothing else. */
function checkWriter(random: Random): void {
  const serials = Array.from({ length: random.below(6) }, () => BigInt(1 + random.below(9)) ** 16n)
  const keyIds = Array.from({ length: random.below(4) }, () => `${random.below(5)}ü@mycorp.com`)
  const version = BigInt(random.below(1e9))
  const bytes = writeKrl({ version, generatedAt: 8_000, certificates: [{ ca: CA, serials, keyIds }] })
  const read = parseKrl(bytes, [CA])
  const [section] = read.certificates
  const ordered = [...new Set(serials)].sort((a, b) => (a < b ? -1 : 1))
  assert.deepEqual(section?.serials ?? [], ordered)
  assert.deepEqual(section?.keyIds ?? [], [...new Set(keyIds)].sort())
  assert.equal(read.entries, ordered.length + new Set(keyIds).size)
  assert.deepEqual(writeKrl(read), bytes)
}

export const KRL_TARGET: Target = {
  name: 'krl',
  cases: 200_000,
  run(random) {
    if (random.oneIn(8)) return checkWriter(random)
    const { bytes, entries, isForeign } = writeList(random)
    if (random.oneIn(3)) {
      if (isForeign) return void assert.throws(() => parseKrl(bytes, [CA]), { code: 'KRL_INVALID' })
      const read = parseKrl(bytes, [CA])
      assert.deepEqual([read.version, read.generatedAt, read.entries], [7n, 8_000, entries])
      return
    }
    const mutated = Buffer.from(mutateBytes(bytes, random))
    try {
      const read = parseKrl(mutated, [CA])
      // every entry has bytes of its own: no length in the list makes more of it
      assert.ok(read.entries * 5 <= mutated.length, `${read.entries} entries in ${mutated.length} bytes`)
    } catch (error) {
      assert.equal((error as { code?: string }).code, 'KRL_INVALID', String(error))
    }
  },
}
