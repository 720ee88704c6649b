import { generateKeyPairSync } from 'node:crypto'
import { createCsr } from '@postern/shared/certs/csr'
import { formatSshPublicKey, toSshPublicKey } from '@postern/shared/certs/ssh-key'
import { ApiClient } from '../api-client.ts'
import { openListener, openPath } from '../path.ts'
import { pingFor } from '../ping.ts'
import { Figures, type Measured, type Row } from '../row.ts'
import { percentile } from '../statistics.ts'

const AT_ONCE = 16
const EMAIL = 'operator@mycorp.com'
const MIN_PER_SECOND = 300

/** Certificates in a second, and what a flow that runs meanwhile feels of it. */
export const certificates: Row = {
  id: 'P7',
  title: 'certificates in a second',
  needs: ['openssl'],
  async run(scale, say): Promise<Measured> {
    const durationMs = scale.quick ? 500 : 4_000
    await using path = await openPath()
    await using listener = await openListener(path)
    using api = await ApiClient.signIn(path.edge, EMAIL)
    const { host } = path
    const csr = createCsr(generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey)
    const publicKey = formatSshPublicKey(toSshPublicKey(generateKeyPairSync('ed25519').publicKey))
    const kinds = {
      TLS: () => api.post('/v1/certificates/client', { host, csr }),
      SSH: () => api.post('/v1/certificates/ssh', { host, publicKey }),
    }
    const figures = new Figures()
    for (const issue of Object.values(kinds)) await repeat(issue, durationMs / 4)
    for (let round = 0; round < scale.rounds; round++) {
      say(`round ${round + 1} of ${scale.rounds}`)
      figures.add(
        'round trip of a flow, p99, at rest',
        'ms',
        percentile(await pingFor(listener.port, durationMs), 0.99),
      )
      for (const [kind, issue] of Object.entries(kinds)) {
        const pings = pingFor(listener.port, durationMs)
        figures.add(`${kind} certificates`, '/s', await repeat(issue, durationMs))
        figures.add(
          `round trip of a flow, p99, under ${kind} certificates`,
          'ms',
          percentile(await pings, 0.99),
        )
      }
    }
    return { figures: figures.all(), goals: Object.keys(kinds).flatMap((kind) => goalsOf(kind, figures)) }
  },
}

function goalsOf(kind: string, figures: Figures): Measured['goals'] {
  const busy = figures.median(`round trip of a flow, p99, under ${kind} certificates`)
  return [
    {
      text: `${kind} certificates`,
      value: figures.median(`${kind} certificates`),
      unit: '/s',
      relation: 'at least',
      limit: MIN_PER_SECOND,
    },
    {
      text: `round trip of a flow under ${kind} certificates, p99, against one at rest`,
      value: busy / figures.median('round trip of a flow, p99, at rest'),
      unit: '×',
      relation: 'at most',
      limit: 2,
    },
  ]
}

/** @returns how often in a second */
async function repeat(work: () => Promise<unknown>, durationMs: number): Promise<number> {
  const started = performance.now()
  let done = 0
  const worker = async () => {
    while (performance.now() - started < durationMs) {
      await work()
      done += 1
    }
  }
  await Promise.all(Array.from({ length: AT_ONCE }, worker))
  return (done * 1_000) / (performance.now() - started)
}
