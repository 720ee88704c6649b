/** The control connections of connectors: one WebSocket each, on `mtls.<domain>`. Attaches a connector to its
 *  service, asks it for data connections, and notices when it is gone. Carries no byte of any flow. */
import { randomBytes, randomUUID } from 'node:crypto'
import type { IncomingMessage } from 'node:http'
import type { TLSSocket } from 'node:tls'
import { PosternError, type PublicError, toPosternError, toPublicError } from '@postern/shared/errors'
import { formatAddress } from '@postern/shared/ip-address'
import type { Logger } from '@postern/shared/logger'
import {
  type AttachedMessage,
  AttachMessage,
  CLOSE_REFUSED,
  CLOSE_REPLACED,
  CONTROL_PATH,
  CONTROL_PING_MS,
  CONTROL_SILENCE_MS,
  CONTROL_SUBPROTOCOL,
  CONTROL_VERSION,
  type EdgeMessage,
  MAX_CONTROL_MESSAGE_BYTES,
  TargetMessage,
} from '@postern/shared/protocol/connector-control'
import { FLOW_IDENTITY_FEATURE } from '@postern/shared/proxy-protocol/flow-identity'
import * as v from 'valibot'
import { type WebSocket, WebSocketServer } from 'ws'
import type { AuditLog } from '../audit/record.ts'
import type { EdgeLimits } from '../config/config.ts'
import type { Strangers } from '../limits/strangers.ts'
import { revokeConnectorLineage, SUPERSEDED } from '../store/certificates.ts'
import { DataPool } from './data-pool.ts'
import { type ConnectorTrust, type IdentifiedConnector, identifyConnector } from './identify-connector.ts'
import type { Attachment, ConnectorRegistry } from './registry.ts'
import { findLiveRival, superseded } from './rival.ts'

export interface ControlTimings {
  /** A connector that has not said `attach` after this long is closed. */
  attachTimeoutMs: number
  pingMs: number
  silenceMs: number
  /** An attachment that answers within this time lives. Well under the time that connectors wait for `attached`. */
  answerTimeoutMs: number
  /** For the process of a connector that fell silent, to attach again before its flows end. */
  returnMs: number
}

const TIMINGS: ControlTimings = {
  attachTimeoutMs: 10_000,
  pingMs: CONTROL_PING_MS,
  silenceMs: CONTROL_SILENCE_MS,
  answerTimeoutMs: 3_000,
  // it notices up to a ping later than the edge; with what it takes to attach
  returnMs: CONTROL_PING_MS + 2_000,
}
const WARM = 1
/** What a connector may require. */
const FEATURES: ReadonlySet<string> = new Set([FLOW_IDENTITY_FEATURE])
/** Control connections of one certificate, attached or not. An honest connector has one, and a dead one or two. */
const MAX_PER_CERTIFICATE = 8
/** What may wait for a connector that does not read; what the edge has to say is a few hundred bytes. */
const MAX_UNREAD_BYTES = 1024 * 1024
const MAX_TIMEOUT_MS = 0x7fff_ffff

export interface ControlParts {
  trust: ConnectorTrust
  registry: ConnectorRegistry
  audit: AuditLog
  strangers: Pick<Strangers, 'identifying'>
  limits: EdgeLimits
  log: Logger
  /** Set once the edge takes no new connectors. */
  isStopping: () => boolean
  timings?: Partial<ControlTimings> | undefined
  /** Told of an attachment whose control connection ended in silence; it is out of the registry. */
  onSilent: (attachment: Attachment, returnMs: number) => void
  /** Ends what a connector has attached and the flows through it: all its certificates were revoked. */
  onSuperseded: (connectorId: string, reason: PosternError) => void
  /** Told of each connection that ended because its certificate opened too many. */
  onCrowdedOut?: (() => void) | undefined
}

export interface Control {
  /** For the `upgrade` event of the mtls room: the handshake has required a connector certificate. */
  upgrade(request: IncomingMessage, socket: TLSSocket, head: Buffer): void
  /** Open connections, attached or not. */
  readonly size: number
  /** Ends every connection; resolves once the end of each is recorded. */
  close(): Promise<void>
}

export function openControl(parts: ControlParts): Control {
  const server = new WebSocketServer({
    noServer: true,
    perMessageDeflate: false,
    maxPayload: MAX_CONTROL_MESSAGE_BYTES,
    handleProtocols: (offered) => (offered.has(CONTROL_SUBPROTOCOL) ? CONTROL_SUBPROTOCOL : false),
  })
  const serving = new Set<Promise<void>>()
  const byCertificate = new Map<string, Set<WebSocket>>() // the oldest first
  /** The oldest goes: a connector that comes back is served, whatever its dead connections hold. */
  const crowdOut = (ws: WebSocket, fingerprint: string) => {
    const others = byCertificate.get(fingerprint) ?? new Set()
    byCertificate.set(fingerprint, others.add(ws))
    ws.once('close', () => {
      others.delete(ws)
      if (others.size === 0 && byCertificate.get(fingerprint) === others) byCertificate.delete(fingerprint)
    })
    const [oldest] = others
    if (!oldest || others.size <= MAX_PER_CERTIFICATE) return
    others.delete(oldest)
    parts.onCrowdedOut?.()
    oldest.terminate()
  }
  return {
    get size() {
      return server.clients.size
    },
    upgrade(request, socket, head) {
      const leaf = socket.getPeerX509Certificate() // gone after close: read now
      const path = request.url?.split('?', 1)[0]
      if (
        !leaf ||
        path !== CONTROL_PATH ||
        request.headers['sec-websocket-protocol'] !== CONTROL_SUBPROTOCOL
      ) {
        socket.end('HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n')
        return void socket.destroySoon() // the HTTP server does not look after it any more
      }
      server.handleUpgrade(request, socket, head, (ws) => {
        crowdOut(ws, leaf.fingerprint256)
        const clientHost = socket.remoteAddress ?? 'unknown'
        const clientAddress = formatAddress(clientHost, socket.remotePort)
        const identify = () =>
          parts.strangers.identifying(clientHost, () => identifyConnector(leaf, parts.trust))
        const served = serveConnector(ws, identify, clientAddress, parts)
          .catch((error: unknown) => {
            parts.log.error('connector.failed', { error })
            ws.terminate()
          })
          .finally(() => serving.delete(served))
        serving.add(served)
      })
    },
    async close() {
      for (const ws of server.clients) ws.terminate()
      await Promise.all(serving)
    },
  }
}

/** The life of one control connection: attach, stay, leave. */
async function serveConnector(
  ws: WebSocket,
  identify: () => Promise<IdentifiedConnector>,
  clientAddress: string,
  parts: ControlParts,
): Promise<void> {
  ws.on('error', (error) => parts.log.debug('connector.socket_error', { error: error.message }))
  const closed = new Promise<void>((resolve) => ws.once('close', () => resolve()))
  const timings = { ...TIMINGS, ...parts.timings }
  const silence = watchSilence(ws, timings, () => {
    if (attachment) attachment.heardAt = performance.now()
  })
  let connector: IdentifiedConnector
  let software: string
  let attachment: Attachment | undefined
  try {
    const attach = await readAttach(ws, timings.attachTimeoutMs)
    software = attach.software
    if (parts.isStopping()) throw new PosternError('EDGE_STOPPING', 'the edge is about to stop')
    connector = await identify()
    const { instanceId } = attach
    const requires = new Set(attach.requires)
    attachment = createAttachment(ws, connector, { clientAddress, instanceId, requires }, parts)
    await refuseBesideRival(attachment, connector, parts)
  } catch (error) {
    const { code } = sayRefused(ws, error, parts.log)
    const connectorId = connectorOf(error)
    parts.log.info('connector.refused', { code, connectorId, clientAddress })
    return parts.audit.record({ type: 'connector.refused', connectorId, clientAddress, code })
  }
  const attachedAt = parts.trust.clock()
  const event = {
    attachmentId: attachment.id,
    connectorId: connector.connectorId,
    serviceId: connector.service.id,
    label: connector.service.label,
    identityId: connector.owner.id,
    email: connector.owner.email,
    certificateSerial: connector.certificate.serial,
    machine: attachment.machine,
  }
  try {
    await parts.audit.record({ type: 'connector.attached', ...event, clientAddress, software })
  } catch (error) {
    attachment.refuse(toPosternError(error, 'INTERNAL', 'the connector could not be attached'))
    throw error
  }
  const expiry = refuseAtExpiry(attachment, connector.certificate.notAfter, parts.trust.clock)
  await refuseBesideRival(attachment, connector, parts).catch((error: unknown) =>
    attachment.refuse(toPosternError(error, 'INTERNAL', 'the connector could not be looked up')),
  )
  if (ws.readyState === ws.OPEN && !attachment.refusal) enter(attachment, parts.registry)
  hearTarget(ws, attachment, parts.trust.clock)
  say(ws, attachedMessage(attachment, connector, parts.trust.domain))
  // what was revoked or deleted while it attached has not found it in the registry
  await identify().catch((error: unknown) =>
    attachment.refuse(toPosternError(error, 'INTERNAL', 'the connector could not be looked up')),
  )
  await closed
  expiry[Symbol.dispose]()
  attachment.leave(new PosternError('SERVICE_OFFLINE', 'the connector has gone'))
  if (silence.endedIt) parts.onSilent(attachment, timings.returnMs)
  await parts.audit.record({
    type: 'connector.lost',
    ...event,
    durationMs: parts.trust.clock() - attachedAt,
    code: attachment.refusal?.code,
    reason: attachment.refusal?.message,
  })
}

/** Puts the connector into the registry. One process is attached once: when it comes back before its old
 *  connection was noticed dead, the new one takes its place. */
function enter(attachment: Attachment, registry: ConnectorRegistry): void {
  registry.ofConnector(attachment.connectorId)?.replace()
  registry.add(attachment)
}

function connectorOf(error: unknown): string | undefined {
  const connectorId = error instanceof PosternError ? error.details?.connectorId : undefined
  return typeof connectorId === 'string' ? connectorId : undefined
}

/** Two living processes with one key: nobody knows which of them is the copy, so both end, and no certificate of
 *  theirs is good for anything any more.
 *  @throws CONNECTOR_SUPERSEDED */
async function refuseBesideRival(
  newcomer: Attachment,
  { connectorId, service, owner, certificate }: IdentifiedConnector,
  { registry, trust, audit, timings, onSuperseded }: ControlParts,
): Promise<void> {
  const answerTimeoutMs = timings?.answerTimeoutMs ?? TIMINGS.answerTimeoutMs
  const rival = await findLiveRival(newcomer, registry, answerTimeoutMs)
  if (!rival) return
  const reason = superseded(connectorId)
  const revocation = { reason: SUPERSEDED, now: trust.clock() }
  const revoked = await revokeConnectorLineage(trust.db, connectorId, revocation)
  onSuperseded(connectorId, reason)
  if (revoked > 0) {
    await audit.record({
      type: 'connector.superseded',
      code: 'CONNECTOR_SUPERSEDED',
      how: 'attached',
      connectorId,
      serviceId: service.id,
      label: service.label,
      identityId: owner.id,
      email: owner.email,
      certificateSerial: certificate.serial,
      machine: newcomer.machine,
      clientAddress: newcomer.clientAddress,
      attachedFrom: rival.clientAddress,
    })
  }
  throw reason
}

function createAttachment(
  ws: WebSocket,
  { connectorId, service, certificate }: IdentifiedConnector,
  about: Pick<Attachment, 'clientAddress' | 'instanceId' | 'requires'>,
  { registry, limits, log }: ControlParts,
): Attachment {
  const attachment: Attachment = {
    id: randomUUID(),
    connectorId,
    serviceId: service.id,
    machine: certificate.machine ?? 'unknown',
    ...about,
    issuedAt: certificate.issuedAt,
    pool: new DataPool((count) => say(ws, { type: 'want', count }), limits.maxDataConnectionsPerConnector),
    heardAt: performance.now(), // it has just said attach
    doubtedUntil: 0,
    target: undefined,
    refusal: undefined,
    answers: (timeoutMs) => answersPing(ws, timeoutMs),
    leave(reason) {
      registry.remove(attachment)
      attachment.pool.close(reason)
    },
    refuse(reason) {
      attachment.refusal ??= reason
      attachment.leave(reason) // now, not when the connector agrees to close: it may be one that never does
      sayRefused(ws, reason, log)
    },
    announceDrain: () => say(ws, { type: 'draining' }),
    replace() {
      attachment.leave(new PosternError('SERVICE_OFFLINE', 'the connector has attached again'))
      ws.close(CLOSE_REPLACED)
    },
  }
  return attachment
}

/** A connector renews and attaches anew long before; one that does not may not stay. */
function refuseAtExpiry(attachment: Attachment, notAfter: number, clock: () => number): Disposable {
  let timer: NodeJS.Timeout
  const check = () => {
    const leftMs = notAfter - clock()
    if (leftMs > 0) timer = setTimeout(check, Math.min(leftMs, MAX_TIMEOUT_MS))
    else
      attachment.refuse(
        new PosternError('CERTIFICATE_EXPIRED', 'the certificate of the connector has expired'),
      )
  }
  check()
  return { [Symbol.dispose]: () => clearTimeout(timer) }
}

function attachedMessage(
  attachment: Attachment,
  { service }: IdentifiedConnector,
  domain: string,
): AttachedMessage {
  return {
    type: 'attached',
    version: CONTROL_VERSION,
    attachmentId: attachment.id,
    service: {
      id: service.id,
      label: service.label,
      name: service.name,
      host: `${service.label}.${domain}`,
      allow: {
        emailDomains: [...service.allow.emailDomains],
        emailAddresses: [...service.allow.emailAddresses],
        anyAuthenticated: service.allow.anyAuthenticated,
      },
    },
    warm: WARM,
  }
}

/** Every other message has no meaning yet. */
function hearTarget(ws: WebSocket, attachment: Attachment, clock: () => number): void {
  ws.on('message', (data, isBinary) => {
    const { success, output } = v.safeParse(TargetMessage, isBinary ? undefined : parseJson(data.toString()))
    if (!success) return
    const { state, code, forMs } = output
    attachment.target = { state, code, since: Math.round(clock() - forMs) }
  })
}

/** Waits for the first message.
 *  @throws PROTOCOL_INVALID late, gone, malformed, or a feature this edge does not have is required */
async function readAttach(ws: WebSocket, timeoutMs: number): Promise<AttachMessage> {
  const text = await new Promise<string>((resolve, reject) => {
    const fail = (why: string) => reject(new PosternError('PROTOCOL_INVALID', `the connector ${why}`))
    const timer = setTimeout(() => fail('did not attach in time'), timeoutMs)
    ws.once('close', () => {
      clearTimeout(timer)
      fail('left before it attached')
    })
    ws.once('message', (data, isBinary) => {
      clearTimeout(timer)
      if (isBinary) fail('sent bytes where a message was expected')
      else resolve(data.toString())
    })
  })
  const parsed = v.safeParse(AttachMessage, parseJson(text))
  if (!parsed.success) throw new PosternError('PROTOCOL_INVALID', 'the attach message is malformed')
  const missing = parsed.output.requires.find((feature) => !FEATURES.has(feature))
  if (missing !== undefined) {
    throw new PosternError(
      'PROTOCOL_INVALID',
      `this edge does not have ${JSON.stringify(missing)}, which the connector requires`,
    )
  }
  return parsed.output
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

/** Pings, and ends a connection that has been silent for too long: a machine can be gone without a FIN.
 *  @returns whether the connection, once it is closed, was ended for that; or for not agreeing to close, which shows
 *  a little before */
function watchSilence(
  ws: WebSocket,
  { pingMs, silenceMs }: ControlTimings,
  onHeard: () => void,
): { readonly endedIt: boolean } {
  const silence = { endedIt: false }
  let lastHeard = performance.now()
  const heard = () => {
    lastHeard = performance.now()
    onHeard()
    if (ws.bufferedAmount > MAX_UNREAD_BYTES) ws.terminate() // asks (each ping is answered) and never reads
  }
  ws.on('pong', heard)
  ws.on('ping', heard)
  ws.on('message', heard) // whatever it says shows that it lives
  const timer = setInterval(() => {
    if (performance.now() - lastHeard > silenceMs) return ws.terminate()
    ws.ping()
  }, pingMs)
  ws.once('close', () => {
    clearInterval(timer)
    silence.endedIt = performance.now() - lastHeard > silenceMs - pingMs
  })
  return silence
}

/** Whether the other end answers this very ping: an answer that was under way proves nothing. One that is about to
 *  close does not answer. */
function answersPing(ws: WebSocket, timeoutMs: number): Promise<boolean> {
  if (ws.readyState !== ws.OPEN) return Promise.resolve(false)
  const question = randomBytes(16)
  return new Promise((resolve) => {
    const settle = (answered: boolean) => {
      clearTimeout(timer)
      ws.off('pong', onPong).off('close', onClose)
      resolve(answered)
    }
    const onPong = (answer: Buffer) => {
      if (answer.equals(question)) settle(ws.readyState === ws.OPEN)
    }
    const onClose = () => settle(false)
    const timer = setTimeout(onClose, timeoutMs)
    ws.on('pong', onPong).on('close', onClose)
    ws.ping(question)
  })
}

function say(ws: WebSocket, message: EdgeMessage): void {
  if (ws.readyState === ws.OPEN) ws.send(JSON.stringify(message))
}

function sayRefused(ws: WebSocket, error: unknown, log: Logger): PublicError {
  const requestId = randomUUID()
  const told = toPublicError(error, requestId)
  if (told.code === 'INTERNAL') log.error('connector.failed', { requestId, error })
  say(ws, { type: 'refused', ...told })
  ws.close(CLOSE_REFUSED)
  return told
}
