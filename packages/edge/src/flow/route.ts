import { PosternError } from '@postern/shared/errors'
import type { FramedEnd } from '@postern/shared/stream/framed-end'
import type { Attachment, ConnectorRegistry } from '../connectors/registry.ts'

/** A data connection of a live connector, reserved for one flow. Disposing gives its place back. */
export interface Target extends Disposable {
  end: FramedEnd
  attachment: Attachment
}

/** Finds the way to a service: the least busy connector first, the next one when it has gone meanwhile. Nothing
 *  has been sent yet, so trying another is safe here, and only here.
 *  @throws SERVICE_OFFLINE no connector, or none that gave a connection in time · the signal's reason */
export async function route(
  service: { id: string; host: string },
  connectors: ConnectorRegistry,
  options: { timeoutMs: number; signal: AbortSignal },
): Promise<Target> {
  options.signal.throwIfAborted() // the reason says more than that its connectors are gone as well
  const late = AbortSignal.timeout(options.timeoutMs)
  const signal = AbortSignal.any([options.signal, late])
  for (const attachment of connectors.ofService(service.id)) {
    try {
      const end = await attachment.pool.take(signal)
      return { end, attachment, [Symbol.dispose]: () => attachment.pool.release() }
    } catch (error) {
      options.signal.throwIfAborted()
      if (late.aborted) break
      if (!(error instanceof PosternError)) throw error
    }
  }
  throw new PosternError('SERVICE_OFFLINE', `${service.host} is offline: no connector serves it now`)
}
