import type { TLSSocket } from 'node:tls'
import { PosternError } from '@postern/shared/errors'
import { ALPN_FLOW } from '@postern/shared/protocol/frames'
import type { ServiceLabel } from '@postern/shared/service-label'
import type { FlowEnd } from '@postern/shared/stream/flow-end'
import { FramedEnd } from '@postern/shared/stream/framed-end'
import { splice, type Traffic } from '@postern/shared/stream/splice'
import { isRefusedCertificate, REFUSAL_SECONDS } from '../api/network-error.ts'
import { edgePort, type KnownEdge } from '../credentials/known-edge.ts'
import { dialEdge, type Trust } from './dial-edge.ts'

/** One connection of a service, whatever stands at this end of it: stdin and stdout, or a local program. */

/** A service, and the edge through which it is reached. */
export interface ServicePlace {
  edge: KnownEdge
  label: ServiceLabel
  /** LABEL.DOMAIN */
  host: string
}

/** @throws what `dialEdge` throws */
export function dialService(
  { edge, host }: ServicePlace,
  trust: Trust,
  signal?: AbortSignal,
): Promise<TLSSocket> {
  return dialEdge({
    host: edge.domain,
    port: edgePort(edge),
    serverName: host,
    alpn: ALPN_FLOW,
    trust,
    signal,
  })
}

export interface JoinOptions {
  host: string
  /** Ends the flow with its reason, a PosternError. */
  signal?: AbortSignal
  /** The service has answered. */
  onOk?: (flowId: string) => void
  /** The service has sent everything, and the local end has it. */
  onDownFlushed?: () => void
}

/** Joins the local end with a service that was dialled. Resolves in every case; a cut is told in words for the
 *  person. */
export async function joinService(
  local: FlowEnd,
  socket: TLSSocket,
  { host, onOk, ...options }: JoinOptions,
): Promise<Traffic> {
  const startedAt = process.uptime() // `performance` would be loaded for it, before the first byte
  let answered = false
  const traffic = await splice(local, new FramedEnd(socket), {
    ...options,
    onControl: (type, body) => {
      answered = true
      if (type === 'ok') onOk?.(String((body as { flowId?: unknown } | null)?.flowId ?? ''))
    },
  })
  if (!traffic.cut) return traffic
  const early = !answered && traffic.bytesDown === 0 && process.uptime() - startedAt < REFUSAL_SECONDS
  return { ...traffic, cut: { ...traffic.cut, error: explainCut(traffic.cut, host, early) } }
}

/** A refused client certificate is an alert, or a close without a word, after the handshake. */
function explainCut(cut: NonNullable<Traffic['cut']>, host: string, early: boolean): PosternError {
  const { error } = cut
  if (cut.by !== 'right' || error.code !== 'FLOW_CUT' || error.details?.saidByPeer) return error
  if (isRefusedCertificate(error.cause) || early) {
    return new PosternError('CERTIFICATE_REFUSED', `the edge refused the certificate for ${host}`, {
      cause: error,
    })
  }
  return new PosternError('FLOW_CUT', `the connection to ${host} was lost in the middle of the flow`, {
    cause: error,
    ...(error.cause === undefined ? { hint: error.hint } : {}),
  })
}

/** Whether the next flow needs another certificate. */
export function spoilsCertificate(error: unknown): boolean {
  return error instanceof PosternError && /^(CERTIFICATE_|ACCESS_DENIED|FLOW_REVOKED)/.test(error.code)
}
