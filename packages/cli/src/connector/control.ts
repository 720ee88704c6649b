import { randomUUID } from 'node:crypto'
import type { ClientRequest, IncomingMessage } from 'node:http'
import { ErrorResponse } from '@postern/shared/api/session'
import { fromPublicError, PosternError } from '@postern/shared/errors'
import {
  type AttachedMessage,
  type AttachMessage,
  CLOSE_REPLACED,
  CONTROL_PATH,
  CONTROL_PING_MS,
  CONTROL_SILENCE_MS,
  CONTROL_SUBPROTOCOL,
  CONTROL_VERSION,
  EdgeMessage,
  MAX_CONTROL_MESSAGE_BYTES,
  type TargetMessage,
} from '@postern/shared/protocol/connector-control'
import { VERSION } from '@postern/shared/version'
import * as v from 'valibot'
import { WebSocket } from 'ws'
import { EdgeAgent } from '../api/https-request.ts'
import { explainNetworkError, explainUnanswered } from '../api/network-error.ts'
import { edgePort, type KnownEdge } from '../credentials/known-edge.ts'
import type { OpenOptions, Place } from '../network/open-tcp.ts'
import { openToRooms } from '../network/transport.ts'
import type { ConnectorCertificate } from './slots.ts'

/** The control WebSocket: attaches this process to its service and hears what the edge needs. Carries no byte of
 *  any flow; flows that run go on when it is lost. */
export interface Attachment {
  attached: AttachedMessage
  /** Resolves with the reason when the connection has ended, for whatever reason. */
  ended: Promise<PosternError>
  /** Tells the edge whether the service takes connections; one that is older ignores it. */
  tellTarget(message: TargetMessage): void
  close(): void
}

const ATTACH_TIMEOUT_MS = 10_000
/** Which process this is. In memory only: whoever copies the connector's files must not have it. */
const INSTANCE_ID = randomUUID()

export interface AttachOptions {
  edge: KnownEdge
  certificate: ConnectorCertificate
  /** What the edge has to have. */
  requires: readonly string[]
  /** The edge asks for more data connections. */
  onWant: (count: number) => void
  signal: AbortSignal
}

/** @throws what the edge says when it refuses · EDGE_UNREACHABLE · EDGE_UNTRUSTED · CERTIFICATE_REFUSED */
export function attach({ edge, certificate, requires, onWant, signal }: AttachOptions): Promise<Attachment> {
  const attached = Promise.withResolvers<Attachment>()
  const ended = Promise.withResolvers<PosternError>()
  const where = `mtls.${edge.domain}:${edgePort(edge)}`
  let reason: PosternError | undefined
  let isUnanswered = false
  const ws = openSocket(edge, certificate, () => {
    isUnanswered = true
  })
  const end = (error: PosternError) => {
    reason ??= error
    ws.terminate()
  }
  const onAbort = () => end(signal.reason)
  signal.addEventListener('abort', onAbort)
  const timer = setTimeout(
    () => end(new PosternError('EDGE_UNREACHABLE', `${where} does not answer`)),
    ATTACH_TIMEOUT_MS,
  )
  watchSilence(ws, () => end(new PosternError('EDGE_UNREACHABLE', `${where} has fallen silent`)))

  ws.on('upgrade', () => {
    isUnanswered = false
  })
  ws.on('open', () => ws.send(JSON.stringify(attachMessage(requires))))
  ws.on('unexpected-response', (_request, response) => {
    readRefusal(response).then(end, () => end(new PosternError('EDGE_UNREACHABLE', `${where} closed`)))
  })
  ws.on('error', (cause) => {
    reason ??= isUnanswered
      ? explainUnanswered(cause, where)
      : explainNetworkError(cause, where, { isPinned: edge.caPem !== undefined })
  })
  ws.on('close', (code) => {
    clearTimeout(timer)
    signal.removeEventListener('abort', onAbort)
    const error = reason ?? explainClose(code, where)
    attached.reject(error)
    ended.resolve(error)
  })
  ws.on('message', (data, isBinary) => {
    const message = isBinary ? undefined : readMessage(String(data))
    switch (message?.type) {
      case 'attached':
        clearTimeout(timer)
        return attached.resolve({
          attached: message,
          ended: ended.promise,
          tellTarget: (target) => ws.readyState === ws.OPEN && ws.send(JSON.stringify(target)),
          close: () => ws.close(1000),
        })
      case 'want':
        return onWant(message.count)
      case 'refused':
        return end(fromPublicError(message, 'CONNECTOR_REFUSED'))
      case 'draining':
        return end(new PosternError('EDGE_STOPPING', `${where} is about to stop`))
    }
  })
  if (signal.aborted) onAbort()
  return attached.promise
}

function openSocket(edge: KnownEdge, certificate: ConnectorCertificate, onHandshake: () => void): WebSocket {
  const trust = { key: certificate.keyPem, cert: certificate.certificatePem, minVersion: 'TLSv1.3' } as const
  // as for data connections, only the edge's own name is looked up
  const open = (place: Place, options: OpenOptions) => openToRooms({ ...place, host: edge.domain }, options)
  const url = `wss://mtls.${edge.domain}:${edgePort(edge)}${CONTROL_PATH}`
  return new WebSocket(url, [CONTROL_SUBPROTOCOL], {
    agent: new EdgeAgent(trust, edge.caPem, open),
    perMessageDeflate: false,
    maxPayload: MAX_CONTROL_MESSAGE_BYTES,
    handshakeTimeout: ATTACH_TIMEOUT_MS,
    followRedirects: false,
    finishRequest(request: ClientRequest) {
      request.once('socket', (socket) => socket.once('secureConnect', onHandshake))
      request.end()
    },
  })
}

function explainClose(code: number, where: string): PosternError {
  if (code === CLOSE_REPLACED) {
    return new PosternError('CONNECTOR_REPLACED', 'another process attached with the key of this connector')
  }
  return new PosternError('EDGE_UNREACHABLE', `${where} closed the connection (${code})`)
}

function attachMessage(requires: readonly string[]): AttachMessage {
  return {
    type: 'attach',
    version: CONTROL_VERSION,
    software: `postern ${VERSION}`,
    features: [],
    requires: [...requires],
    instanceId: INSTANCE_ID,
  }
}

/** Pings, and notices an edge that is gone without a FIN. */
function watchSilence(ws: WebSocket, onSilent: () => void): void {
  let lastHeard = performance.now()
  const heard = () => {
    lastHeard = performance.now()
  }
  for (const event of ['open', 'ping', 'pong', 'message'] as const) ws.on(event, heard)
  const timer = setInterval(() => {
    if (performance.now() - lastHeard > CONTROL_SILENCE_MS) return onSilent()
    if (ws.readyState === ws.OPEN) ws.ping()
  }, CONTROL_PING_MS)
  ws.on('close', () => clearInterval(timer))
}

/** Messages of a later version are ignored. */
function readMessage(text: string): EdgeMessage | undefined {
  try {
    const result = v.safeParse(EdgeMessage, JSON.parse(text))
    return result.success ? result.output : undefined
  } catch {
    return undefined
  }
}

/** An HTTP answer in place of the WebSocket. */
async function readRefusal(response: IncomingMessage): Promise<PosternError> {
  let text = ''
  for await (const chunk of response) {
    text += chunk
    if (text.length > MAX_CONTROL_MESSAGE_BYTES) break
  }
  const status = response.statusCode ?? 0
  try {
    const { error } = v.parse(ErrorResponse, JSON.parse(text))
    return fromPublicError(error, status >= 500 ? 'EDGE_UNREACHABLE' : 'CONNECTOR_REFUSED')
  } catch {
    return new PosternError('EDGE_UNREACHABLE', `the edge answered with HTTP status ${status}`)
  }
}
