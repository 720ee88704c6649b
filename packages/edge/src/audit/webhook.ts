import { createHmac } from 'node:crypto'
import type { Batch } from './sinks.ts'

/** Posts a batch; any 2xx is an acceptance. The signature covers the time too, so that nobody plays a batch again
 *  later. @throws whatever went wrong: the batch is then sent again */
export async function postBatch(
  { url, secret }: { url: URL; secret: string },
  { name, lines }: Batch,
  { now, signal }: { now: number; signal: AbortSignal },
): Promise<void> {
  const body = lines.map(({ line }) => `${line}\n`).join('')
  const seconds = Math.floor(now / 1_000)
  const signature = createHmac('sha256', secret).update(`${seconds}.${body}`).digest('hex')
  const response = await fetch(url, {
    method: 'POST',
    body,
    signal,
    redirect: 'error',
    headers: {
      'content-type': 'application/x-ndjson',
      'postern-delivery': name,
      'postern-signature': `t=${seconds},v1=${signature}`,
    },
  })
  await response.body?.cancel() // whatever it says, only the status counts
  if (!response.ok) throw new Error(`it answered with status ${response.status}`)
}
