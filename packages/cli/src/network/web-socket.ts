import type { IncomingMessage } from 'node:http'
import type { Duplex } from 'node:stream'
import { PosternError } from '@postern/shared/errors'
import {
  MAX_TRANSPORT_MESSAGE_BYTES,
  TRANSPORT_PATH,
  TRANSPORT_SUBPROTOCOL,
} from '@postern/shared/protocol/transport'
import { MessageStream } from '@postern/shared/stream/message-stream'
import { WebSocket } from 'ws'
import { createOuterAgent } from '../api/https-request.ts'
import { explainNetworkError } from '../api/network-error.ts'
import type { OpenOptions, Place } from './open-tcp.ts'

/** The WebSocket of `--transport ws`. Loaded only where it is asked for. */

const OPEN_TIMEOUT_MS = 9_000
/** Proxies end a WebSocket on which nothing passes, most after a minute. */
const PING_MS = 20_000

/** @throws TRANSPORT_REFUSED · EDGE_UNREACHABLE · EDGE_UNTRUSTED about what ends TLS · PROXY_* */
export function openWebSocket({ host, port }: Place, { signal }: OpenOptions): Promise<Duplex> {
  const where = `${host}:${port}`
  const { promise, resolve, reject } = Promise.withResolvers<Duplex>()
  const ws = new WebSocket(`wss://${where}${TRANSPORT_PATH}`, [TRANSPORT_SUBPROTOCOL], {
    agent: createOuterAgent(),
    perMessageDeflate: false,
    maxPayload: MAX_TRANSPORT_MESSAGE_BYTES,
    handshakeTimeout: OPEN_TIMEOUT_MS,
    followRedirects: false,
  })
  const onAbort = () => {
    reject(signal?.reason)
    ws.terminate()
  }
  const settle = () => signal?.removeEventListener('abort', onAbort)
  signal?.addEventListener('abort', onAbort)
  if (signal?.aborted) onAbort()
  ws.once('open', () => {
    settle()
    const ping = setInterval(() => ws.ping(), PING_MS)
    ws.once('close', () => clearInterval(ping))
    resolve(new MessageStream(ws))
  })
  ws.once('unexpected-response', (_request: unknown, response: IncomingMessage) => {
    reject(
      new PosternError(
        'TRANSPORT_REFUSED',
        `${where} opens no WebSocket to the edge: it answered ${response.statusCode}`,
      ),
    )
    ws.terminate()
  })
  ws.on('error', (cause) => reject(explainOuter(explainNetworkError(cause, where))))
  ws.once('close', settle)
  return promise
}

/** It is not the edge's certificate that was shown, so the edge's CA is not what is missing. */
function explainOuter(error: PosternError): PosternError {
  if (error.code !== 'EDGE_UNTRUSTED') return error
  return new PosternError(error.code, error.message, {
    cause: error,
    hint: 'with --transport ws that is whatever ends TLS in front of the edge; if its CA is not a public one, name it: --transport-ca FILE',
  })
}
