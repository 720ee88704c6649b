import type { IncomingHttpHeaders, IncomingMessage } from 'node:http'
import https from 'node:https'
import type { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { TLSSocket } from 'node:tls'
import { PosternError } from '@postern/shared/errors'
import { type OpenOptions, openTcp, type Place } from '../network/open-tcp.ts'
import { outerCa, usesWebSocket } from '../network/transport-kind.ts'
import {
  explainNetworkError,
  explainUnanswered,
  readShownCertificate,
  type ShownCertificate,
} from './network-error.ts'

/** HTTPS to an edge: its own CA, the way through the network, limits of time and size. Node's fetch offers none of the
 *  three. */

export interface HttpsRequest {
  method: string
  headers?: Record<string, string>
  body?: string | undefined
}

export interface HttpsAnswer {
  status: number
  headers: IncomingHttpHeaders
  body: Buffer
  /** The edge's clock minus ours, measured with the `Date` header: to about half a second. */
  clockOffsetMs: number | undefined
}

export const CONNECT_TIMEOUT_MS = 10_000
const ANSWER_TIMEOUT_MS = 30_000
const MAX_ANSWER_BYTES = 8 * 1024 * 1024

/** Connections to one edge, kept between requests. Destroy it when done.
 *  @param identity shown where the edge asks for a certificate */
export function createAgent(
  caPem: string | undefined,
  identity: { key: string; cert: string } | undefined = undefined,
): https.Agent {
  const options = { keepAlive: true, minVersion: 'TLSv1.2', ...identity } as const
  // who ends TLS in front of the edge answers in its name
  if (usesWebSocket()) return new EdgeAgent(options, outerCa())
  const agent = new EdgeAgent(options, caPem)
  agent.isPinned = caPem !== undefined
  return agent
}

/** For the WebSockets of `--transport ws`: one connection each. */
export function createOuterAgent(): https.Agent {
  return new EdgeAgent({ keepAlive: false, minVersion: 'TLSv1.2' }, outerCa())
}

/** Lets TLS begin on a connection that was opened the way this network wants it. */
export class EdgeAgent extends https.Agent {
  /** Believes a CA of the edge itself, and no other. */
  isPinned = false
  readonly #open: (place: Place, options: OpenOptions) => Promise<Duplex>

  constructor(
    options: https.AgentOptions,
    caPem: string | undefined,
    open: (place: Place, options: OpenOptions) => Promise<Duplex> = openTcp,
  ) {
    // said aloud, because NODE_TLS_REJECT_UNAUTHORIZED=0 would otherwise switch it off
    super({ ...options, rejectUnauthorized: true, ...(caPem === undefined ? {} : { ca: caPem }) })
    this.#open = open
  }

  override createConnection(
    options: https.RequestOptions,
    callback: (error: Error | null, stream: Duplex) => void,
  ): undefined {
    this.#connect(options).then(
      (stream) => callback(null, stream),
      (error: Error) => callback(error, undefined as never),
    )
  }

  async #connect(options: https.RequestOptions): Promise<Duplex> {
    const place = { host: String(options.host), port: Number(options.port) }
    const signal = AbortSignal.timeout(CONNECT_TIMEOUT_MS)
    const socket = await this.#open(place, { signal })
    try {
      return super.createConnection({ ...options, socket } as https.RequestOptions)!
    } catch (error) {
      socket.destroy() // a CA that cannot be read, for one
      throw error
    }
  }
}

/** @throws EDGE_UNREACHABLE · EDGE_UNTRUSTED · CLOCK_OFF · PROTOCOL_INVALID when the answer is too large ·
 *  CERTIFICATE_REFUSED where the agent shows one */
export function requestHttps(agent: https.Agent, url: URL, wanted: HttpsRequest): Promise<HttpsAnswer> {
  return new Promise((resolve, reject) => {
    const sentAt = Date.now()
    let shown: ShownCertificate | undefined
    let isAnswered = false
    const request = https.request(url, {
      agent,
      method: wanted.method,
      headers: wanted.headers ?? {},
      signal: AbortSignal.timeout(ANSWER_TIMEOUT_MS),
    })
    const explain = (cause: unknown) =>
      agent.options.cert && shown && !isAnswered
        ? explainUnanswered(cause, url.host)
        : explainNetworkError(cause, url.host, {
            shown,
            isPinned: agent instanceof EdgeAgent && agent.isPinned,
          })
    const fail = (cause: unknown) => {
      request.destroy()
      reject(explain(cause))
    }
    request.on('socket', (socket) => {
      // a kept connection has its handshake behind it; not told by getProtocol(), which has an answer before
      if (!request.reusedSocket) watchConnect(socket, request, (certificate) => (shown = certificate))
    })
    request.on('error', (error) => fail(error.name === 'AbortError' ? timedOut('answer') : error))
    request.on('response', (response) => {
      isAnswered = true
      const clockOffsetMs = measureOffset(response.headers.date, sentAt, Date.now())
      readBody(response, url.host)
        .then((body) =>
          resolve({ status: response.statusCode ?? 0, headers: response.headers, body, clockOffsetMs }),
        )
        .catch(fail)
    })
    request.end(wanted.body)
  })
}

/** The `fetch` that openid-client is given. */
export function createFetch(agent: https.Agent, onAnswer: (answer: HttpsAnswer) => void) {
  return async (
    url: string,
    options: { method?: string; headers?: unknown; body?: unknown },
  ): Promise<Response> => {
    const answer = await requestHttps(agent, new URL(url), {
      method: options.method ?? 'GET',
      headers: Object.fromEntries(new Headers(options.headers as Record<string, string>)),
      body: options.body === undefined || options.body === null ? undefined : String(options.body),
    })
    onAnswer(answer)
    const headers = new Headers()
    for (const [name, value] of Object.entries(answer.headers)) {
      for (const one of Array.isArray(value) ? value : [value ?? '']) headers.append(name, one)
    }
    const empty = answer.status === 204 || answer.status === 304
    return new Response(empty ? null : new Uint8Array(answer.body), { status: answer.status, headers })
  }
}

/** The handshake has its own, shorter limit. */
function watchConnect(
  socket: Socket,
  request: { destroy(error: Error): void },
  onCertificate: (shown: ShownCertificate | undefined) => void,
): void {
  if (!(socket instanceof TLSSocket)) return
  const timer = setTimeout(() => request.destroy(timedOut('connection')), CONNECT_TIMEOUT_MS)
  // runs before Node verifies; a socket that failed to verify no longer has its certificate
  socket.prependListener('secure', () => onCertificate(readShownCertificate(socket)))
  socket.once('secureConnect', () => clearTimeout(timer))
  socket.once('close', () => clearTimeout(timer))
}

async function readBody(response: IncomingMessage, host: string): Promise<Buffer> {
  const chunks: Buffer[] = []
  let bytes = 0
  for await (const chunk of response as AsyncIterable<Buffer>) {
    bytes += chunk.length
    if (bytes > MAX_ANSWER_BYTES)
      throw new PosternError('PROTOCOL_INVALID', `the answer of ${host} is too large`)
    chunks.push(chunk)
  }
  return Buffer.concat(chunks)
}

/** `Date` counts whole seconds, so its middle is the best guess; so is the middle between question and answer. */
export function measureOffset(
  date: string | undefined,
  sentAt: number,
  receivedAt: number,
): number | undefined {
  const edgeTime = Date.parse(date ?? '')
  return Number.isNaN(edgeTime) ? undefined : Math.round(edgeTime + 500 - (sentAt + receivedAt) / 2)
}

function timedOut(what: string): Error {
  return Object.assign(new Error(`no ${what} in time`), { code: 'ETIMEDOUT' })
}
