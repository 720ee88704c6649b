/** The life of a flow, from the finished handshake to the closed stream: the product in one function. */
import type { X509Certificate } from 'node:crypto'
import { type ErrorCode, PosternError, toPublicError } from '@postern/shared/errors'
import { parseEndpoint } from '@postern/shared/ip-address'
import type { Logger } from '@postern/shared/logger'
import { type FlowIdentityKey, signFlowIdentity } from '@postern/shared/proxy-protocol/flow-identity'
import { parseServiceLabel } from '@postern/shared/service-label'
import type { FlowEnd } from '@postern/shared/stream/flow-end'
import type { Traffic } from '@postern/shared/stream/splice'
import type { Kysely } from 'kysely'
import type { AuditEvent } from '../audit/event.ts'
import type { AuditLog } from '../audit/record.ts'
import type { EdgeLimits } from '../config/config.ts'
import type { ConnectorRegistry } from '../connectors/registry.ts'
import type { Rate } from '../limits/rate.ts'
import type { Strangers } from '../limits/strangers.ts'
import { contextOf } from '../policy/context.ts'
import { isPerson } from '../policy/evaluate.ts'
import type { Database } from '../store/schema.ts'
import { storeLost } from '../store-watch.ts'
import { authorize, denied } from './authorize.ts'
import type { Enforcement } from './enforce.ts'
import { type FlowIdentity, identify } from './identify.ts'
import type { LiveFlow, LiveFlows } from './live-flows.ts'
import { openClientEnd, relay } from './relay.ts'
import type { Entered } from './rooms.ts'
import { route } from './route.ts'

export interface FlowParts {
  domain: string
  /** More than one while a new one takes over. */
  readonly clientCas: readonly X509Certificate[]
  readonly workloadCas: readonly X509Certificate[]
  db: Kysely<Database>
  live: LiveFlows
  enforcement: Pick<Enforcement, 'admit'>
  connectors: ConnectorRegistry
  audit: AuditLog
  limits: EdgeLimits
  /** Says to services that ask who comes. */
  identityKey: FlowIdentityKey
  /** `https://edge.example.com` */
  origin: () => string
  flowRate: Rate
  strangers: Pick<Strangers, 'identifying'>
  log: Logger
  clock: () => number
  /** Set once the edge takes no new flows. */
  isStopping: () => boolean
  /** Set while nothing can be read or recorded. */
  isStoreLost: () => boolean
}

/** What is known of a flow so far, for the audit log. */
interface Known {
  flowId: string
  clientAddress: string
  label: string
  identityId?: string
  email?: string
  certificateSerial?: string
  serviceId?: string
}

/** Serves one client connection until its stream is closed. Never rejects: what goes wrong is told to the client,
 *  recorded and logged here. */
export async function serveFlow(entered: Entered, parts: FlowParts): Promise<void> {
  using flow = parts.live.enter() // from here on any revocation aborts it: flow.signal
  const client = openClientEnd(entered, flow.id)
  const label = entered.hello.serverName!.slice(0, -parts.domain.length - 1)
  const known: Known = { flowId: flow.id, clientAddress: entered.clientAddress, label }
  try {
    const admitted = await admit(entered, flow, known, parts)
    await carry(client, { ...admitted, edgeAddress: entered.edgeAddress }, flow, known, parts)
  } catch (error) {
    const code = refuse(client, error, flow, parts.log)
    parts.log.info('flow.refused', { ...known, code })
    if (code === 'RECORD_FAILED') countUnrecorded(known, parts)
  }
}

/** Tells the client of a flow that has not been relayed. */
function refuse(client: FlowEnd, error: unknown, flow: LiveFlow, log: Logger): ErrorCode {
  const { code, message, hint } = toPublicError(error, flow.id)
  client.abort(new PosternError(code, message, { hint }))
  if (code === 'INTERNAL' || code === 'RECORD_FAILED')
    log.error('flow.failed', { flowId: flow.id, code, error })
  return code
}

/** What cannot be written under its name is counted without one, and written with the counts once the store is back. */
function countUnrecorded({ clientAddress }: Known, { audit }: FlowParts): void {
  audit.record({ type: 'flow.refused', code: 'RECORD_FAILED', clientAddress }).catch(() => {}) // the edge has ended
}

interface Admitted {
  identity: FlowIdentity
  serviceId: string
}

/** Identify and authorize. The decision is durable when this returns: before any byte moves, and a flow that
 *  cannot be recorded is refused. */
async function admit(entered: Entered, flow: LiveFlow, known: Known, parts: FlowParts): Promise<Admitted> {
  const { identity, service, decision } = await recordingRefusal(flow, known, parts, () => {
    refuseWhenFull(parts)
    return decideUndisturbed(entered, flow, known, parts)
  })
  await parts.audit.record({
    type: 'flow.decided',
    ...(known as Required<Known>),
    decision: decision.allowed ? 'allow' : 'deny',
    rule: decision.rule,
    ruleKind: decision.ruleKind,
    code: decision.allowed ? undefined : decision.code,
  })
  if (!decision.allowed) throw denied(`${known.label}.${parts.domain}`, decision)
  return { identity, serviceId: service.id }
}

/** Decides by what nobody has changed while it was read; from the turn on in which it does, a change is carried to the
 *  flow by whoever makes it. */
async function decideUndisturbed(entered: Entered, flow: LiveFlow, known: Known, parts: FlowParts) {
  const { clock, db, domain, clientCas, workloadCas, enforcement, flowRate, strangers } = parts
  const leaf = entered.tls.getPeerX509Certificate()
  if (!leaf) throw new PosternError('CERTIFICATE_REFUSED', 'the client showed no certificate')
  const label = parseServiceLabel(known.label)
  for (;;) {
    const { changes } = flow
    const { identity, subject, certificate, session } = await strangers.identifying(entered.clientHost, () =>
      identify(leaf, flow.facts, { db, domain, clientCas, workloadCas, label, now: clock() }),
    )
    const { id: identityId, email } = identity
    const isCounted = known.identityId !== undefined
    Object.assign(known, { identityId, email, certificateSerial: certificate.serial })
    if (!isCounted) await flowRate.spend(identityId)
    const context = contextOf(session, entered.clientAddress)
    const now = clock()
    const { service, decision } = await authorize(subject, label, certificate.serviceId, {
      db,
      context,
      now,
    })
    known.serviceId = service.id
    flow.signal.throwIfAborted()
    if (flow.changes !== changes) continue
    if (!isPerson(subject)) flow.program = subject
    flow.about = { email, label, clientAddress: entered.clientAddress }
    return {
      identity,
      service,
      decision: decision.allowed ? enforcement.admit(flow, decision, context) : decision,
    }
  }
}

/** Route and relay, and what became of it. */
async function carry(
  client: FlowEnd,
  admitted: Admitted & Pick<Entered, 'edgeAddress'>,
  flow: LiveFlow,
  known: Known,
  parts: FlowParts,
): Promise<void> {
  const { limits, connectors, log } = parts
  const service = { id: admitted.serviceId, host: `${known.label}.${parts.domain}` }
  let traffic: Traffic = { bytesUp: 0, bytesDown: 0 }
  let failure: unknown
  try {
    using target = await route(service, connectors, { flow, timeoutMs: limits.routeTimeoutMs })
    using _relaying = parts.live.relaying(flow)
    traffic = await relay(client, target, {
      flow,
      service,
      identity: admitted.identity,
      clientAddress: known.clientAddress,
      signIdentity: (connectorId) => signIdentity({ connectorId, service, ...admitted }, known, parts),
      answerTimeoutMs: limits.routeTimeoutMs,
    })
    failure = brokenBy(traffic) // the client knows
  } catch (error) {
    failure = error
    refuse(client, error, flow, log)
  }
  const code = failure === undefined ? undefined : toPublicError(failure, flow.id).code
  if (code !== undefined) log.info('flow.ended', { ...known, code })
  const event: AuditEvent = {
    type: 'flow.closed',
    ...(known as Required<Known>),
    connectorId: flow.facts.connectorId,
    bytesUp: traffic.bytesUp,
    bytesDown: traffic.bytesDown,
    durationMs: parts.clock() - flow.startedAt,
    code,
  }
  // too late to refuse anything: the bytes have passed
  await parts.audit
    .record(event)
    .catch((error: unknown) => log.error('flow.end_not_recorded', { event, error }))
}

/** For the service itself, where its connector requires it: what this edge has decided, as of now. */
function signIdentity(
  of: Admitted & { connectorId: string; edgeAddress: string; service: { id: string; host: string } },
  known: Known,
  { identityKey, origin, clock }: FlowParts,
): { edgeAddress: string; identityToken: string } {
  const [source, destination] = [known.clientAddress, of.edgeAddress].map(parseEndpoint)
  if (!source || !destination) throw new Error('the addresses of the client are none')
  const identityToken = signFlowIdentity(
    {
      issuer: origin(),
      service: of.service.host,
      serviceId: of.service.id,
      identityId: of.identity.id,
      email: of.identity.email,
      flowId: known.flowId,
      connectorId: of.connectorId,
      source,
      destination,
    },
    identityKey,
    clock(),
  )
  return { edgeAddress: of.edgeAddress, identityToken }
}

function refuseWhenFull({ isStopping, isStoreLost, live, limits }: FlowParts): void {
  if (isStoreLost()) throw storeLost()
  if (isStopping())
    throw new PosternError('EDGE_STOPPING', 'the edge is about to stop and takes no new flows')
  if (live.size > limits.maxFlows)
    throw new PosternError('RATE_LIMITED', 'the edge relays as many flows as it may')
}

/** Writes down why a flow ended before there was a decision. */
async function recordingRefusal<T>(
  { facts }: LiveFlow,
  known: Known,
  parts: FlowParts,
  step: () => Promise<T>,
): Promise<T> {
  try {
    return await step()
  } catch (error) {
    const { code } = toPublicError(error, known.flowId)
    const { certificateSerial } = facts // known before it is known whose it is
    await parts.audit.record({ type: 'flow.refused', certificateSerial, ...known, code })
    throw error
  }
}

/** Why a relayed flow ended abnormally; undefined for a clean end. A client that leaves once it has the whole
 *  answer ended well: ssh and `postern client tls` do. */
function brokenBy({ cut }: Traffic): PosternError | undefined {
  return !cut || (cut.by === 'left' && cut.downEnded) ? undefined : cut.error
}
