import { type ErrorCode, PosternError } from '@postern/shared/errors'
import type { OpenFrame } from '@postern/shared/protocol/control-frames'
import { FLOW_IDENTITY_FEATURE } from '@postern/shared/proxy-protocol/flow-identity'
import type { FlowEnd } from '@postern/shared/stream/flow-end'
import { FramedEnd } from '@postern/shared/stream/framed-end'
import { RawEnd } from '@postern/shared/stream/raw-end'
import { resetSocket } from '@postern/shared/stream/reset-socket'
import { splice, type Traffic } from '@postern/shared/stream/splice'
import type { FlowIdentity } from './identify.ts'
import type { LiveFlow } from './live-flows.ts'
import type { Entered } from './rooms.ts'
import { doubt, type Target } from './route.ts'

/** The client's end of a flow: framed for `postern/1`, plain bytes for every other TLS client. Owns the
 *  connection from here on. */
export function openClientEnd({ tls, socket, hello }: Entered, flowId: string): FlowEnd {
  if (hello.alpn.length > 0) return new FramedEnd(tls, flowId)
  // a TLS socket cannot reset; the TCP connection under it can, and nobody takes that for a clean end
  return new RawEnd(tls, tls, () => resetSocket(socket, tls))
}

/** Writes the open frame and joins client and connector: the client's bytes follow at once, nobody waits for the
 *  service to answer. When it does, the client is told with the flow's id. */
export function relay(
  client: FlowEnd,
  target: Target,
  parts: {
    flow: LiveFlow
    service: { id: string; host: string }
    identity: FlowIdentity
    clientAddress: string
    /** Said to a connector that requires it. */
    signIdentity: (connectorId: string) => Pick<OpenFrame, 'edgeAddress' | 'identityToken'>
    answerTimeoutMs: number
  },
): Promise<Traffic> {
  const { flow, service, identity, clientAddress } = parts
  const { requires, connectorId } = target.attachment
  const open: OpenFrame = {
    flowId: flow.id,
    serviceId: service.id,
    identity: { id: identity.id, email: identity.email },
    clientAddress,
    ...(requires.has(FLOW_IDENTITY_FEATURE) ? parts.signIdentity(connectorId) : {}),
  }
  flow.bytesFromConnector = () => target.end.bytesRead
  // a revocation since the way was found: splice tells both sides, and the connector hears of no flow
  if (!flow.signal.aborted) target.end.send('open', open)
  const unanswered = setTimeout(() => {
    doubt(target.attachment)
    flow.cut(new PosternError('SERVICE_UNREACHABLE', `the connector of ${service.host} does not answer`))
  }, parts.answerTimeoutMs)
  return splice(client, target.end, {
    signal: flow.signal,
    explain: (error) => explainTarget(error, service.host),
    onControl(type) {
      if (type !== 'ok') return
      clearTimeout(unanswered)
      target.attachment.heardAt = performance.now()
      if (client instanceof FramedEnd) client.send('ok', { flowId: flow.id })
    },
  }).finally(() => clearTimeout(unanswered))
}

const FROM_CONNECTOR: Partial<Record<ErrorCode, (host: string) => string>> = {
  SERVICE_REFUSED: (host) => `the service behind ${host} refused the connection`,
  SERVICE_UNREACHABLE: (host) => `the connector of ${host} cannot reach its service`,
}

/** A connector says a code; the sentence is ours, and says nothing about the private network. */
function explainTarget(error: PosternError, host: string): PosternError {
  const sentence = FROM_CONNECTOR[error.code]
  if (sentence) return new PosternError(error.code, sentence(host), { cause: error })
  return new PosternError('FLOW_CUT', `the connection to ${host} was lost in the middle of the flow`, {
    cause: error,
  })
}
