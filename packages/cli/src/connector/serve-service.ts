import { PosternError } from '@postern/shared/errors'
import type { KnownEdge } from '../credentials/known-edge.ts'
import type { Changing } from './changing.ts'
import { type ConnectorParts, runConnector } from './connector.ts'
import type { ServiceSettings } from './service-settings.ts'
import { type ConnectorCertificate, clearSlot, type Slot } from './slots.ts'

/** What a connector starts with. */
export interface Begun {
  edge: KnownEdge
  slot: Slot
  certificate: ConnectorCertificate
}

/** Serves one service until it is to leave; what belongs to it beside its flows included. Gives its slot back.
 *  @throws the reason when the edge does not want this connector any more */
export async function serveService(
  { edge, slot, certificate }: Begun,
  settings: Changing<ServiceSettings>,
  parts: Pick<ConnectorParts, 'report' | 'signal' | 'leaving' | 'checkService'>,
): Promise<void> {
  using _slot = slot
  const over = new AbortController()
  const signal = AbortSignal.any([parts.signal, parts.leaving, over.signal])
  const watched = watchSshServer({ edge, slot }, settings, { report: parts.report, signal })
  try {
    await runConnector({ edge, slot, certificate, settings, ...parts })
  } catch (error) {
    if (isRefused(error)) clearSlot(slot) // the next start registers a new connector
    throw error
  } finally {
    over.abort()
    await watched
  }
}

async function watchSshServer(
  of: Pick<Begun, 'edge' | 'slot'>,
  settings: Changing<ServiceSettings>,
  { report, signal }: Pick<ConnectorParts, 'report' | 'signal'>,
): Promise<void> {
  while (!signal.aborted) {
    const { value, replaced } = settings.now
    const outdated = new AbortController()
    void replaced.then(() => outdated.abort())
    const isOver = AbortSignal.any([signal, outdated.signal])
    const { sshServer: target } = value
    if (target) {
      const { watchHostKeys } = await import('./host-keys.ts')
      await watchHostKeys({ ...of, target, report, signal: isOver })
    } else await aborted(isOver)
  }
}

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve()
    else signal.addEventListener('abort', () => resolve(), { once: true })
  })
}

/** The edge will not take this certificate again. */
function isRefused(error: unknown): boolean {
  return error instanceof PosternError && /^(CONNECTOR|CERTIFICATE)_/.test(error.code)
}
