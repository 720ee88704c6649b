import { PosternError } from '@postern/shared/errors'
import type { Control } from './connectors/control.ts'
import type { ConnectorRegistry } from './connectors/registry.ts'
import type { Ingress } from './flow/ingress.ts'
import type { LiveFlows } from './flow/live-flows.ts'
import type { Rooms } from './flow/rooms.ts'
import type { Transport } from './transport/transport.ts'

export interface DrainParts {
  connectors: ConnectorRegistry
  live: LiveFlows
  ingress: Ingress
  control: Control
  rooms: Rooms
  transport: Transport
}

/** For what was ended to tell its client and to be recorded. */
const LAST_WORDS_MS = 2_000

/** Lets live flows finish until the deadline and ends the rest, then every connection. It listens on meanwhile: who comes
 *  now is told why not, and `/readyz` says so too.
 *  @returns whether all of them finished */
export async function drain(
  { connectors, live, ingress, control, rooms, transport }: DrainParts,
  deadlineMs: number,
): Promise<boolean> {
  for (const attachment of connectors.all()) attachment.announceDrain()
  const drained = await settlesWithin(live.drained(), deadlineMs)
  const disconnected = ingress.close()
  live.cutWhere({}, new PosternError('EDGE_STOPPING', 'the edge was stopped'))
  await settlesWithin(live.drained(), LAST_WORDS_MS)
  await settlesWithin(control.close(), LAST_WORDS_MS)
  rooms.close()
  transport.close()
  await settlesWithin(disconnected, LAST_WORDS_MS)
  ingress.destroyAll()
  return drained
}

async function settlesWithin(promise: Promise<void>, ms: number): Promise<boolean> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<false>((resolve) => {
    timer = setTimeout(() => resolve(false), ms)
  })
  const result = await Promise.race([promise.then(() => true), late])
  clearTimeout(timer)
  return result
}
