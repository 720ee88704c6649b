import { PosternError } from '@postern/shared/errors'
import type { FramedEnd } from '@postern/shared/stream/framed-end'
import type { Attachment, ConnectorRegistry } from '../connectors/registry.ts'
import type { LiveFlow } from './live-flows.ts'

/** A data connection of a live connector, reserved for one flow. Disposing gives its place back. */
export interface Target extends Disposable {
  end: FramedEnd
  attachment: Attachment
}

/** Finds the way to a service: the least busy connector first, the next one when it has gone meanwhile. Nothing
 *  has been sent yet, so trying another is safe here, and only here. The flow's facts name the connector from the
 *  same turn on in which it was seen to be good: whoever revokes it later finds the flow.
 *  @throws SERVICE_OFFLINE no connector, or none that gave a connection in time · the signal's reason */
export async function route(
  service: { id: string; host: string },
  connectors: ConnectorRegistry,
  { flow, timeoutMs }: { flow: LiveFlow; timeoutMs: number },
): Promise<Target> {
  flow.signal.throwIfAborted() // the reason says more than that its connectors are gone as well
  const late = AbortSignal.timeout(timeoutMs)
  const signal = AbortSignal.any([flow.signal, late])
  for (const attachment of connectors.ofService(service.id)) {
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
      return { end, attachment, [Symbol.dispose]: () => attachment.pool.release() }
    } catch (error) {
      flow.signal.throwIfAborted()
      if (late.aborted) break
      if (!(error instanceof PosternError)) throw error
    }
  }
  throw new PosternError('SERVICE_OFFLINE', `${service.host} is offline: no connector serves it now`)
}
