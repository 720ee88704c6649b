import { randomBytes } from 'node:crypto'

/** An id that is never given twice; the prefix tells people what it names: `svc_5f0c…`. */
export function newId(prefix: 'chn' | 'con' | 'enr' | 'idn' | 'ses' | 'svc' | 'wld'): string {
  return `${prefix}_${randomBytes(12).toString('hex')}`
}
