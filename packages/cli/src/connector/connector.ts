/** A connector's life: attach to the edge, keep data connections ready, serve flows, renew the certificate, and
 *  come back after whatever happens. Dials out only; connects to the one target it was given. */
import { setTimeout as wait } from 'node:timers/promises'
import { Backoff } from '@postern/shared/backoff'
import { type ErrorCode, PosternError, toPosternError } from '@postern/shared/errors'
import { FLOW_IDENTITY_FEATURE } from '@postern/shared/proxy-protocol/flow-identity'
import { fingerprintOf, newestCa } from '../credentials/edge-cas.ts'
import { edgeNow, edgePort, type KnownEdge, reloadCas, withOrigin } from '../credentials/known-edge.ts'
import { errorFields } from '../events.ts'
import { renewalTime, renewConnector } from './certificate.ts'
import type { Changing } from './changing.ts'
import { type Attachment, attach } from './control.ts'
import { serveDataConnection } from './data.ts'
import type { Report } from './events.ts'
import type { ConnectorCertificate, Slot } from './slots.ts'
import type { Target } from './target.ts'
import { TargetHealth } from './target-health.ts'
import { WarmConnections } from './warm-connections.ts'

const FIRST_RETRY_MS = 500
const MAX_RETRY_MS = 30_000
/** A connection that lasted this long was a good one: the next wait is short again. */
const LASTING_MS = 60_000
const RENEWAL_RETRY_MS = 60_000
/** An edge that does not take a certificate that is newer than this has another reason. */
const DOUBT_AGAIN_MS = 600_000

/** What no further attempt can mend. */
const FINAL: ReadonlySet<ErrorCode> = new Set([
  'CONNECTOR_REFUSED',
  'CONNECTOR_SUPERSEDED',
  'OPERATOR_REQUIRED',
  'SERVICE_UNKNOWN',
  'ALLOW_LIST_DIFFERS',
])

/** What the edge may say, or show, about the certificate itself. At the door a renewal may mend it; when the renewal
 *  hears it, nothing does. */
const ABOUT_CERTIFICATE: ReadonlySet<ErrorCode> = new Set([
  'CERTIFICATE_REFUSED',
  'CERTIFICATE_REVOKED',
  'CERTIFICATE_EXPIRED',
])

/** The certificate of now; `due` asks for a renewal before half of its life is over. */
interface Holder {
  certificate: ConnectorCertificate
  due: boolean
  /** When it was last made due because the edge did not take the certificate. */
  doubtedAt: number
}

/** What its flows find. Those that run keep what they have found. */
export interface ConnectorSettings {
  target: Target
  /** Whether the service hears who comes, in a PROXY header. */
  proxyProtocol: boolean
  /** How often to look whether the service is there; 0: never. */
  healthCheckMs: number
}

export interface ConnectorParts {
  edge: KnownEdge
  slot: Slot
  certificate: ConnectorCertificate
  settings: Changing<ConnectorSettings>
  report: Report
  /** Aborts when the connector is to end: flows that run are reset. */
  signal: AbortSignal
  /** Aborts when it is to leave: no new flow, and those that run may end by themselves. */
  leaving: AbortSignal
  /** Looks at the service as the edge describes it when the connector starts. What it throws ends the connector. */
  checkService?: (service: Attachment['attached']['service']) => void
}

/** Runs until one of its signals aborts.
 *  @throws the reason when the edge does not want this connector any more */
export async function runConnector(parts: ConnectorParts): Promise<void> {
  const { report } = parts
  const gone = AbortSignal.any([parts.signal, parts.leaving])
  const failed = new AbortController()
  const holder: Holder = { certificate: parts.certificate, due: false, doubtedAt: Number.NEGATIVE_INFINITY }
  const backoff = new Backoff(FIRST_RETRY_MS, MAX_RETRY_MS)
  let stay: Stay | undefined
  let standing: Standing = 'new'
  const tellTarget = () => {
    if (health.message) stay?.attachment.tellTarget(health.message)
  }
  const health = new TargetHealth(report, tellTarget)
  const looking = health.watch(parts.settings, AbortSignal.any([gone, failed.signal]))

  while (!gone.aborted) {
    const startedAt = performance.now()
    try {
      await renewWhenDue(holder, parts)
      const next = await openStay(holder, parts, gone)
      stay?.leave() // the edge lets one process attach once: the new one has taken the place of the old
      stay = next
      tellTarget()
      if (standing === 'new') parts.checkService?.(stay.attachment.attached.service)
      announce(stay.attachment, parts, standing)
      standing = 'attached'
      const end = await waitForEndOrChange(stay, holder, parts, gone)
      if (end) throw end
    } catch (caught) {
      stay?.leave()
      stay = undefined
      if (gone.aborted) return
      const error = toPosternError(withOrigin(caught, parts.edge.origin), 'INTERNAL', String(caught))
      if (FINAL.has(error.code)) {
        failed.abort()
        throw error
      }
      if (ABOUT_CERTIFICATE.has(error.code)) doubt(holder)
      // a process that lost its place although it lives is not alone with its key: renewing shows that to the edge
      if (error.code === 'CONNECTOR_REPLACED') holder.due = true
      if (performance.now() - startedAt > LASTING_MS) backoff.reset()
      if (standing === 'attached') standing = 'lost'
      const retryInMs = backoff.next()
      const isUntrusted = error.code === 'EDGE_UNTRUSTED'
      if (isUntrusted) reloadCas(parts.edge) // perhaps somebody has named the new one since
      const { hint } = error
      report({ event: 'disconnected', ...errorFields(error), ...(isUntrusted ? { hint } : {}), retryInMs })
      await wait(retryInMs, undefined, { signal: gone }).catch(() => undefined)
    }
  }
  stay?.leave()
  await looking
}

/** Whether the edge has known us, and still does. */
type Standing = 'new' | 'attached' | 'lost'

/** One attachment with its data connections. */
interface Stay {
  attachment: Attachment
  /** Settles when its settings are no longer those of now. */
  outdated: Promise<void>
  /** Settles when the edge does not take its data connections, and a renewal is due. */
  refused: Promise<void>
  leave(): void
}

async function openStay(holder: Holder, parts: ConnectorParts, gone: AbortSignal): Promise<Stay> {
  const { edge, report } = parts
  const { value, replaced: outdated } = parts.settings.now
  const { target, proxyProtocol } = value
  const over = new AbortController()
  const refused = Promise.withResolvers<void>()
  let connections: WarmConnections | undefined
  let firstRefusedAt: number | undefined
  const attachment = await attach({
    edge,
    certificate: holder.certificate,
    requires: proxyProtocol ? [FLOW_IDENTITY_FEATURE] : [],
    onWant: (count) => connections?.want(count),
    signal: gone,
  })
  const { attachmentId, warm } = attachment.attached
  const dial = dialOptions(edge, holder.certificate)
  connections = new WarmConnections(
    (on) => {
      const startedAt = performance.now()
      return serveDataConnection({
        edge: dial,
        attachmentId,
        target,
        proxyProtocol,
        report,
        waitSignal: AbortSignal.any([over.signal, gone]),
        flowSignal: parts.signal,
        onOpen: on.open,
        onUsed() {
          firstRefusedAt = undefined
          on.used()
        },
      }).catch((error: unknown) => {
        if (error instanceof PosternError && ABOUT_CERTIFICATE.has(error.code)) {
          // the first may have been cut on its way; one that was begun after it, and is closed too, was not
          firstRefusedAt ??= performance.now()
          if (startedAt > firstRefusedAt && doubt(holder)) refused.resolve()
        }
        throw error
      })
    },
    warm,
    over.signal,
  )
  const leave = () => {
    over.abort(new PosternError('SERVICE_OFFLINE', 'the connector has left'))
    attachment.close()
  }
  return { attachment, outdated, refused: refused.promise, leave }
}

/** A change of certificates is nobody's business. */
function announce({ attached }: Attachment, parts: ConnectorParts, standing: Standing): void {
  const { edge, certificate, report } = parts
  const { service } = attached
  if (standing === 'lost') report({ event: 'reconnected', host: service.host })
  if (standing !== 'new') return
  const { connectorId } = certificate
  const caFingerprint = edge.caPem === undefined ? undefined : fingerprintOf(newestCa(edge.caPem))
  report({ event: 'ready', host: service.host, edge: edge.origin, caFingerprint, service, connectorId })
}

/** @returns why the attachment ended, or undefined when the certificate was renewed or the settings are others, and it
 *  is time to attach anew; the old attachment serves until then */
async function waitForEndOrChange(
  { attachment, outdated, refused }: Stay,
  holder: Holder,
  parts: ConnectorParts,
  gone: AbortSignal,
): Promise<PosternError | undefined> {
  let isOutdated = false
  const change = outdated.then(() => {
    isOutdated = true
  })
  for (let retryMs = 0; ; retryMs = RENEWAL_RETRY_MS) {
    const enough = new AbortController()
    const dueInMs = Math.max(retryMs, renewalTime(holder.certificate) - edgeNow(parts.edge))
    const signal = AbortSignal.any([enough.signal, gone])
    const due = wait(dueInMs, undefined, { signal }).catch(() => undefined)
    const end = await Promise.race([attachment.ended, due, change, refused])
    enough.abort()
    if (end) return end
    if (gone.aborted) return gone.reason
    if (isOutdated || (await renewWhenDue(holder, parts))) return undefined
  }
}

/** A renewal that fails is no harm while the certificate lives.
 *  @returns true when it was renewed
 *  @throws what makes it impossible to go on */
async function renewWhenDue(holder: Holder, { edge, slot, report }: ConnectorParts): Promise<boolean> {
  const { certificate } = holder
  if (!holder.due && edgeNow(edge) < renewalTime(certificate)) return false
  try {
    holder.certificate = await renewConnector(edge, slot, certificate)
    holder.due = false
    report({ event: 'renewed', notAfter: holder.certificate.notAfter })
    return true
  } catch (caught) {
    const error = toPosternError(caught, 'INTERNAL', String(caught))
    if (FINAL.has(error.code)) throw error
    if (ABOUT_CERTIFICATE.has(error.code)) throw refusedForGood(error)
    if (holder.due || certificate.notAfter < edgeNow(edge)) throw error
    report({ event: 'renewal.failed', ...errorFields(error) })
    return false
  }
}

/** A CA may have been replaced while we were away, or was taken out of use: a renewal needs none.
 *  @returns whether it makes a renewal due: a new certificate that is not taken either waits for its time */
function doubt(holder: Holder): boolean {
  const now = performance.now()
  if (now - holder.doubtedAt < DOUBT_AGAIN_MS) return false
  holder.doubtedAt = now
  holder.due = true
  return true
}

function refusedForGood({ message, hint }: PosternError): PosternError {
  return new PosternError('CONNECTOR_REFUSED', message, { hint })
}

function dialOptions(edge: KnownEdge, { keyPem, certificatePem }: ConnectorCertificate) {
  const { domain, caPem } = edge
  const trust = { caPem, keyPem, certificatePem }
  return { host: domain, port: edgePort(edge), serverName: domain, trust }
}
