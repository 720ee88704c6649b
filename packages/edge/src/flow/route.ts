import { PosternError } from '@postern/shared/errors'
import type { FramedEnd } from '@postern/shared/stream/framed-end'
import type { Attachment, ConnectorRegistry } from '../connectors/registry.ts'
import type { LiveFlow } from './live-flows.ts'

/** A data connection of a live connector, reserved for one flow. Disposing gives its place back. */
export interface Target extends Disposable {
  end: FramedEnd
  attachment: Attachment
}

/** Heard from within this time, a connector is taken for alive and not asked: in a burst of flows nobody waits for a
 *  round trip. */
const FRESH_MS = 2_000
/** Long for any network, short for a person who waits. */
const PROOF_MS = 2_000
/** At least as long as it takes until a silent control connection is ended. */
const DOUBT_MS = 45_000

/** The connector did not do what it was asked to: others are preferred for a while. */
export function doubt(attachment: Attachment): void {
  attachment.doubtedUntil = performance.now() + DOUBT_MS
}

/** Finds the way to a service: the least busy connector first, the next one when it has gone meanwhile. Nothing
 *  has been sent yet, so trying another is safe here, and only here. Where there is another, a connector must show
 *  that it lives: its warm connections look alike whether its machine is there or not. The flow's facts name the
 *  connector from the same turn on in which it was seen to be good: whoever revokes it later finds the flow.
 *  @throws SERVICE_OFFLINE no connector, or none that gave a connection in time · the signal's reason */
export async function route(
  service: { id: string; host: string },
  connectors: ConnectorRegistry,
  { flow, timeoutMs }: { flow: LiveFlow; timeoutMs: number },
): Promise<Target> {
  flow.signal.throwIfAborted() // the reason says more than that its connectors are gone as well
  const late = AbortSignal.timeout(timeoutMs)
  const signal = AbortSignal.any([flow.signal, late])
  for (const attachment of await livingFirst(connectors.ofService(service.id), signal)) {
    try {
      const end = await attachment.pool.take(signal)
      // both may have happened since the pool gave it away, and nobody knew yet that it is this flow's
      const reason = flow.signal.aborted ? (flow.signal.reason as PosternError) : attachment.refusal
      if (reason) {
        end.abort(reason)
        attachment.pool.release()
        throw reason
      }
      flow.facts.connectorId = attachment.connectorId
      flow.facts.instanceId = attachment.instanceId ?? attachment.id
      return { end, attachment, [Symbol.dispose]: () => attachment.pool.release() }
    } catch (error) {
      flow.signal.throwIfAborted()
      if (late.aborted) break
      if (!(error instanceof PosternError)) throw error
    }
  }
  throw new PosternError('SERVICE_OFFLINE', `${service.host} is offline: no connector serves it now`)
}

/** Asks the best one only, then the next: who answers is taken, and who does not comes last. Those in doubt are not
 *  asked again: they are taken in their order when there is nobody else. */
async function livingFirst(
  candidates: readonly Attachment[],
  signal: AbortSignal,
): Promise<readonly Attachment[]> {
  if (candidates.length < 2) return candidates
  for (const [index, attachment] of candidates.entries()) {
    if (signal.aborted || isDoubted(attachment)) break
    if (isFresh(attachment) || (await attachment.answers(PROOF_MS))) {
      return [...candidates.slice(index), ...candidates.slice(0, index)]
    }
    doubt(attachment)
  }
  return candidates
}

function isDoubted({ doubtedUntil }: Attachment): boolean {
  return doubtedUntil > performance.now()
}

function isFresh({ heardAt }: Attachment): boolean {
  return performance.now() - heardAt < FRESH_MS
}
