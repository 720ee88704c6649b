import { PosternError } from '@postern/shared/errors'
import { parseEndpoint } from '@postern/shared/ip-address'
import { type HelloFrame, OpenFrame, readFrameBody } from '@postern/shared/protocol/control-frames'
import { ALPN_DATA } from '@postern/shared/protocol/frames'
import { FLOW_IDENTITY_TYPE } from '@postern/shared/proxy-protocol/flow-identity'
import { writeProxyHeader } from '@postern/shared/proxy-protocol/header'
import { FramedEnd } from '@postern/shared/stream/framed-end'
import { RawEnd } from '@postern/shared/stream/raw-end'
import { resetSocket } from '@postern/shared/stream/reset-socket'
import { splice } from '@postern/shared/stream/splice'
import { REFUSAL_SECONDS } from '../api/network-error.ts'
import { type Dial, dialEdge } from '../tunnel/dial-edge.ts'
import { HeldEnd } from '../tunnel/held-end.ts'
import { dialService, whatWasFound } from './dial-service.ts'
import type { Report } from './events.ts'
import type { Target } from './target.ts'

/** One data connection: dial the edge, say hello, wait for a flow, join it to the service. */

export interface DataConnection {
  /** Host, port and CA of the edge, and the connector's certificate. */
  edge: Omit<Dial, 'alpn' | 'signal'>
  attachmentId: string
  target: Target
  /** Tells the service who comes, before the first byte. */
  proxyProtocol: boolean
  report: Report
  /** Ends the connection while it waits: its attachment is gone. */
  waitSignal: AbortSignal
  /** Ends its flow, with a reset at the service: the connector leaves. */
  flowSignal: AbortSignal
  /** It waits for a flow now. */
  onOpen: () => void
  /** The edge has turned it into a flow: another one should take its place. */
  onUsed: () => void
}

/** Resolves when the connection has ended, with or without a flow.
 *  @throws what kept it from being opened · CERTIFICATE_REFUSED the edge closed it at once, without a word */
export async function serveDataConnection(connection: DataConnection): Promise<void> {
  const { attachmentId, waitSignal } = connection
  const socket = await dialEdge({ ...connection.edge, alpn: ALPN_DATA, signal: waitSignal })
  const end = new FramedEnd(socket)
  end.send('hello', { version: 1, attachmentId } satisfies HelloFrame)
  connection.onOpen()
  const flow = await waitForOpen(end, waitSignal)
  if (!flow) return
  connection.onUsed()
  await serveFlow(flow, connection)
}

interface OpenedFlow {
  open: OpenFrame
  client: FramedEnd
  /** The client's bytes so far wait in here. */
  held: HeldEnd
  /** Aborts when the client leaves before the service has answered. */
  left: AbortSignal
}

/** @returns undefined when the edge closed the connection unused
 *  @throws PROTOCOL_INVALID · CERTIFICATE_REFUSED */
function waitForOpen(client: FramedEnd, signal: AbortSignal): Promise<OpenedFlow | undefined> {
  const startedAt = performance.now()
  return new Promise((resolve, reject) => {
    const onAbort = () => {
      client.abort(signal.reason as PosternError)
      resolve(undefined)
    }
    const fail = (error: PosternError) => {
      signal.removeEventListener('abort', onAbort)
      client.abort(error)
      reject(error)
    }
    client.receive({
      chunk: () => fail(new PosternError('PROTOCOL_INVALID', 'bytes arrived before an open frame')),
      end: () => fail(new PosternError('PROTOCOL_INVALID', 'an end arrived before an open frame')),
      drain: () => undefined,
      cut: (error) => {
        signal.removeEventListener('abort', onAbort)
        const isEarly = performance.now() - startedAt < REFUSAL_SECONDS * 1_000
        if (isEarly && !error.details?.saidByPeer) reject(refused(error))
        else resolve(undefined)
      },
      control(type, body) {
        if (type !== 'open') return
        signal.removeEventListener('abort', onAbort)
        const left = new AbortController()
        // receives from here on, also what the same chunk still brings
        const held = new HeldEnd(client, (error) => left.abort(error))
        resolve({ open: readFrameBody(OpenFrame, body, 'open'), client, held, left: left.signal })
      },
    })
    if (signal.aborted) return onAbort()
    signal.addEventListener('abort', onAbort)
    client.resume()
  })
}

function refused(cause: PosternError): PosternError {
  return new PosternError('CERTIFICATE_REFUSED', 'the edge closed a data connection without a word', {
    cause,
  })
}

async function serveFlow(flow: OpenedFlow, connection: DataConnection): Promise<void> {
  const { report } = connection
  const { flowId, identity, clientAddress } = flow.open
  const who = { flowId, email: identity.email, clientAddress }
  const startedAt = performance.now()
  report({ event: 'flow.opened', ...who })
  const { bytesUp, bytesDown, error } = await joinService(flow, connection)
  const durationMs = Math.round(performance.now() - startedAt)
  report({
    event: 'flow.closed',
    ...who,
    bytesUp,
    bytesDown,
    durationMs,
    ...(error ? { error: error.code, found: whatWasFound(error) } : {}),
  })
}

async function joinService(
  { open, client, held, left }: OpenedFlow,
  { target, proxyProtocol, flowSignal: signal }: DataConnection,
): Promise<{ bytesUp: number; bytesDown: number; error?: PosternError | undefined }> {
  let service: Awaited<ReturnType<typeof dialService>>
  try {
    const header = proxyProtocol ? headerOf(open) : undefined
    service = await dialService(target, AbortSignal.any([left, signal]))
    if (header) service.write(header)
  } catch (caught) {
    const error = caught as PosternError
    held.abort(error)
    return { bytesUp: 0, bytesDown: 0, error }
  }
  client.send('ok', { flowId: open.flowId })
  const serviceEnd = new RawEnd(service, service, () => resetSocket(service))
  const traffic = await splice(held, serviceEnd, { signal })
  return { ...traffic, error: traffic.cut?.error }
}

/** @throws PROTOCOL_INVALID the edge, which was asked to, says too little: the service would take the flow for another */
function headerOf({ clientAddress, edgeAddress, identityToken }: OpenFrame): Buffer {
  const source = parseEndpoint(clientAddress)
  const destination = parseEndpoint(edgeAddress ?? '')
  if (!source || !destination || identityToken === undefined) {
    throw new PosternError('PROTOCOL_INVALID', 'the edge does not say who comes')
  }
  return writeProxyHeader(source, destination, [
    { type: FLOW_IDENTITY_TYPE, value: Buffer.from(identityToken) },
  ])
}
