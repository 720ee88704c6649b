import assert from 'node:assert/strict'
import { der } from '@postern/shared/certs/der'
import { readSubject, renderSubject } from '../packages/edge/src/ca/subject.ts'
import { mutateBytes } from './mutate.ts'
import type { Random } from './random.ts'
import type { Target } from './target.ts'

/** The subject of a certificate that somebody else's CA has signed: whatever that CA lets its people write. */

const TYPES = ['550403', '550406', '55040a', '2a864886f70d010901', '0992268993f22c640119'].map((hex) =>
  Buffer.from(hex, 'hex'),
)
const TEXTS = ['sensor-7', 'a,CN=b', 'a@b.co', 'x\0y', '', ' ', 'ä', 'a\\', '1.2']
const STRINGS = [0x0c, 0x13, 0x16, 0x1e, 0x14]

function writeCertificate(random: Random): Buffer {
  const pick = <T>(list: readonly T[]) => list[random.below(list.length)]!
  const fields = Array.from({ length: random.below(5) }, () => {
    const pair = () => der(0x30, der(0x06, pick(TYPES)), der(pick(STRINGS), Buffer.from(pick(TEXTS))))
    return der(0x31, pair(), ...(random.oneIn(6) ? [pair()] : []))
  })
  const body = [der(0xa0, der(2, Buffer.of(2))), der(2, Buffer.of(9)), der(0x30), der(0x30), der(0x30)]
  return der(0x30, der(0x30, ...body, der(0x30, ...fields)), der(0x30), der(3))
}

/** Every subject that was seen, as people read it: no two of them look alike. */
const seen = new Map<string, string>()

export const SUBJECT_TARGET: Target = {
  name: 'subject',
  cases: 200_000,
  run(random) {
    const bytes = writeCertificate(random)
    const read = random.oneIn(2) ? bytes : Buffer.from(mutateBytes(bytes, random))
    try {
      const fields = readSubject(read)
      const rendered = renderSubject(fields)
      const exact = JSON.stringify(fields)
      assert.doesNotMatch(rendered, /[@\p{C}]/u)
      if (seen.size < 50_000) seen.set(rendered, seen.get(rendered) ?? exact)
      assert.equal(seen.get(rendered) ?? exact, exact)
    } catch (error) {
      if (error instanceof assert.AssertionError) throw error
      assert.equal((error as { code?: string }).code, 'CERTIFICATE_REFUSED', String(error))
    }
  },
}
