/** What the edge counts about itself, in the text format of Prometheus. Label values are bounded: codes, rooms,
 *  kinds, never a name, an address or an id. docs/metrics.md lists every metric; a test compares the two. */
import type { ErrorCode } from '@postern/shared/errors'
import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client'
import { isStrangersRefusal } from './audit/count-strangers.ts'
import type { AuditEvent } from './audit/event.ts'
import type { DataPool } from './connectors/data-pool.ts'
import type { RefusedHttp } from './flow/bound-http.ts'
import type { RefusedHandshake } from './flow/rooms.ts'
import type { AddressLimit } from './limits/strangers.ts'
import type { CertificateStatus } from './status.ts'
import type { ObservedQuery } from './store/observe.ts'
import type { RefusedTransport } from './transport/transport.ts'
import { isUntrusted } from './untrusted-certificate.ts'

/** Asked when somebody reads the metrics. */
export interface MetricSources {
  connectionsOpen(): number
  handshakesPending(): number
  turnedAway(): ReadonlyMap<string, number>
  httpConnections(): ReadonlyMap<string, number>
  transportConnections(): number
  flowsLive(): number
  flowsNotCovered(): number
  storeLost(): number
  changesNotHeard(): number
  otherEdges(): number
  edgesWithOtherKeys(): number
  pools(): readonly Pick<DataPool, 'size' | 'waiting'>[]
  controlConnections(): number
  auditWaiting(): number
  auditSinkLags(): readonly number[]
  /** Epoch milliseconds. */
  serverCertificate(): Pick<CertificateStatus, 'notAfter' | 'isAwaited' | 'nextAttemptAt'>
  /** Epoch milliseconds. */
  now(): number
}

export interface Metrics {
  registry: Registry
  /** What the audit log has recorded.
   *  @param ms how long that took */
  countEvent(event: AuditEvent, ms: number): void
  /** What it could not record. */
  countUnrecorded(): void
  observeHandshake(room: string, ms: number): void
  countHandshakeRefused(refused: Pick<RefusedHandshake, 'room' | 'code'>): void
  countHttpRefused(refused: Pick<RefusedHttp, 'room' | 'reason'>): void
  countTransportRefused(refused: Pick<RefusedTransport, 'reason'>): void
  countApiRefused(code: ErrorCode): void
  countControlCrowdedOut(): void
  countAddressLimited(limit: AddressLimit): void
  countSshWithdrawFailed(): void
  /** The edge shows another certificate than before. */
  countServerCertificateRenewed(): void
  /** And could not have one. */
  countServerCertificateFailed(code: ErrorCode): void
  /** A flow was ended this long after a change or its time called for it. */
  observeRevocation(ms: number): void
  /** A flow is relayed this long after its handshake. */
  observeFlowSetup(ms: number): void
  observeQuery(query: ObservedQuery): void
}

export function createMetrics(sources: MetricSources): Metrics {
  const registry = new Registry()
  collectDefaultMetrics({ register: registry })
  addGauges(registry, sources)
  const counter = <L extends string>(name: string, help: string, ...labelNames: L[]) =>
    new Counter<L>({ name, help, labelNames, registers: [registry] })
  const histogram = <L extends string>(name: string, help: string, buckets: number[], ...labelNames: L[]) =>
    new Histogram<L>({ name, help, buckets, labelNames, registers: [registry] })

  const handshakes = counter(
    'postern_handshakes_refused_total',
    'TLS handshakes that did not succeed',
    'room',
    'reason',
  )
  const handshakeTime = histogram(
    'postern_handshake_seconds',
    'Time of TLS handshakes that succeeded, from the whole ClientHello on',
    NETWORK_SECONDS,
    'room',
  )
  const http = counter(
    'postern_http_refused_total',
    'HTTP connections that were ended before or instead of an answer of ours',
    'room',
    'reason',
  )
  const transport = counter(
    'postern_transport_refused_total',
    'WebSockets of --transport ws that were not taken, or that the edge has ended',
    'reason',
  )
  const api = counter(
    'postern_api_refused_total',
    'Requests of the API and the sign-in that were answered with an error',
    'code',
  )
  const decided = counter('postern_flows_decided_total', 'Flows that the policy decided', 'result', 'rule')
  const setup = histogram(
    'postern_flow_setup_seconds',
    'From the handshake of a flow until it is relayed: decided, recorded, and led to a connector',
    NETWORK_SECONDS,
  )
  const refused = counter(
    'postern_flows_refused_total',
    'Flows that ended before there was a decision',
    'code',
  )
  const closed = counter(
    'postern_flows_closed_total',
    'Admitted flows that have ended; ok is a clean end',
    'code',
  )
  const bytes = counter('postern_flow_bytes_total', 'Bytes of ended flows; up is to the service', 'direction')
  const attached = counter('postern_connectors_attached_total', 'Connectors that have attached')
  const connectors = counter(
    'postern_connectors_refused_total',
    'Connectors that were not let in, or whose renewal was refused as a copy',
    'code',
  )
  const lost = counter(
    'postern_connectors_lost_total',
    'Connectors that have gone; ok went by themselves',
    'code',
  )
  const crowdedOut = counter(
    'postern_control_crowded_out_total',
    'Control connections ended because their certificate opened too many',
  )
  const certificates = counter('postern_certificates_issued_total', 'Certificates signed', 'kind')
  const certificatesRefused = counter(
    'postern_certificates_refused_total',
    'Certificates that were asked for in vain',
    'code',
  )
  const logins = counter('postern_logins_total', 'Logins that came to a result; ok or why not', 'result')
  const recorded = counter('postern_audit_recorded_total', 'Audit events that are on disk')
  const unrecorded = counter('postern_audit_failed_total', 'Audit events that could not be recorded')
  const limited = counter(
    'postern_address_limited_total',
    'Times that strangers at one address were held to a limit',
    'limit',
  )
  const withdrawFailed = counter(
    'postern_ssh_withdraw_failed_total',
    'Changes whose ssh certificates could not be revoked at once; tried again before the next list is given out',
  )
  const serverRenewed = counter(
    'postern_server_certificate_renewed_total',
    'New certificates that the edge shows',
  )
  const serverFailed = counter(
    'postern_server_certificate_failed_total',
    'Times that a new certificate for the edge could not be had or used: the one before stays',
    'code',
  )
  const revocation = histogram(
    'postern_revocation_seconds',
    'From a change, or the end of what a policy allows, to the end of each flow it ends',
    [0.005, 0.025, 0.1, 0.25, 0.5, 1, 2.5, 10],
  )
  const recordTime = histogram(
    'postern_audit_record_seconds',
    'From an event to its record on disk; a flow waits for that of its decision',
    DISK_SECONDS,
  )
  const queryTime = histogram(
    'postern_store_seconds',
    'Time of statements in the store; of a transaction, commit waits for the disk',
    DISK_SECONDS,
    'operation',
  )
  const queryFailed = counter('postern_store_failed_total', 'Statements that failed', 'operation')

  return {
    registry,
    observeRevocation: (ms) => revocation.observe(ms / 1_000),
    observeFlowSetup: (ms) => setup.observe(ms / 1_000),
    observeQuery({ operation, ms, hasFailed }) {
      queryTime.observe({ operation }, ms / 1_000)
      if (hasFailed) queryFailed.inc({ operation })
    },
    observeHandshake: (room, ms) => handshakeTime.observe({ room }, ms / 1_000),
    countEvent(event, ms) {
      recorded.inc()
      if (!isStrangersRefusal(event)) recordTime.observe(ms / 1_000)
      switch (event.type) {
        case 'flow.decided':
          return decided.inc({ result: event.decision, rule: event.ruleKind })
        case 'flow.refused':
          return refused.inc({ code: event.code })
        case 'flow.closed':
          bytes.inc({ direction: 'up' }, event.bytesUp)
          bytes.inc({ direction: 'down' }, event.bytesDown)
          return closed.inc({ code: event.code ?? 'ok' })
        case 'connector.attached':
          return attached.inc()
        case 'connector.refused':
        case 'connector.superseded':
          return connectors.inc({ code: event.code })
        case 'connector.lost':
          return lost.inc({ code: event.code ?? 'ok' })
        case 'connector.renewed':
          return certificates.inc({ kind: 'connector_renewal' })
        case 'certificate.issued':
          return certificates.inc({ kind: event.kind })
        case 'certificate.refused':
          return certificatesRefused.inc({ code: event.code })
        case 'login.ok':
          return logins.inc({ result: 'ok' })
        case 'login.refused':
          return logins.inc({ result: event.code })
      }
    },
    countUnrecorded: () => unrecorded.inc(),
    countHandshakeRefused: ({ room, code }) => handshakes.inc({ room, reason: handshakeReason(code) }),
    countHttpRefused: ({ room, reason }) => http.inc({ room, reason }),
    countTransportRefused: ({ reason }) => transport.inc({ reason }),
    countApiRefused: (code) => api.inc({ code }),
    countControlCrowdedOut: () => crowdedOut.inc(),
    countAddressLimited: (limit) => limited.inc({ limit }),
    countSshWithdrawFailed: () => withdrawFailed.inc(),
    countServerCertificateRenewed: () => serverRenewed.inc(),
    countServerCertificateFailed: (code) => serverFailed.inc({ code }),
  }
}

/** What a person waits for. */
const NETWORK_SECONDS = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10]
const DISK_SECONDS = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5]

function addGauges(registry: Registry, sources: MetricSources): void {
  const gauge = (name: string, help: string, read: () => number) =>
    new Gauge({
      name,
      help,
      registers: [registry],
      collect() {
        this.set(read())
      },
    })
  gauge('postern_connections_open', 'TCP connections on the one port', sources.connectionsOpen)
  gauge('postern_handshakes_pending', 'Connections whose handshake is not done', sources.handshakesPending)
  gauge('postern_flows_live', 'Flows being decided or relayed', sources.flowsLive)
  gauge(
    'postern_flows_not_covered',
    'Relayed flows that a revocation would not find: always 0',
    sources.flowsNotCovered,
  )
  gauge('postern_store_lost', '1 while the store takes no writes', sources.storeLost)
  gauge(
    'postern_changes_not_heard',
    '1 while changes of other edges on the same store may be missed',
    sources.changesNotHeard,
  )
  gauge('postern_edges_other', 'Other edges on the same store', sources.otherEdges)
  gauge(
    'postern_edges_with_other_keys',
    'Other edges on the same store whose keys are not the same as here: always 0',
    sources.edgesWithOtherKeys,
  )
  gauge('postern_connectors_attached', 'Connectors that serve', () => sources.pools().length)
  gauge('postern_flows_waiting', 'Flows that wait for a data connection', () =>
    sources.pools().reduce((sum, { waiting }) => sum + waiting, 0),
  )
  gauge(
    'postern_server_certificate_expires_timestamp_seconds',
    'End of the certificate that the edge shows, in seconds since 1970',
    () => sources.serverCertificate().notAfter / 1_000,
  )
  gauge(
    'postern_server_certificate_days_left',
    'Days until the end of the certificate that the edge shows',
    () => (sources.serverCertificate().notAfter - sources.now()) / 86_400_000,
  )
  gauge(
    'postern_server_certificate_awaited',
    '1 while the first certificate by ACME is still to come: one of the internal CA is shown',
    () => Number(sources.serverCertificate().isAwaited),
  )
  gauge(
    'postern_server_certificate_next_order_timestamp_seconds',
    'When the edge orders the next certificate by ACME, in seconds since 1970; 0 without ACME',
    () => (sources.serverCertificate().nextAttemptAt ?? 0) / 1_000,
  )
  gauge(
    'postern_transport_connections',
    'WebSockets of --transport ws, each with one connection inside',
    sources.transportConnections,
  )
  gauge('postern_control_connections', 'Control connections, attached or not', sources.controlConnections)
  gauge('postern_audit_waiting', 'Audit events that are not on disk yet', sources.auditWaiting)
  new Gauge({
    name: 'postern_audit_sink_lag',
    help: 'Audit records that a sink has not accepted yet',
    labelNames: ['sink'],
    registers: [registry],
    collect() {
      for (const [index, lag] of sources.auditSinkLags().entries()) this.set({ sink: String(index) }, lag)
    },
  })
  new Gauge({
    name: 'postern_data_connections',
    help: 'Data connections of attached connectors',
    labelNames: ['state'],
    registers: [registry],
    collect() {
      const sizes = sources.pools().map(({ size }) => size)
      this.set(
        { state: 'idle' },
        sizes.reduce((sum, { idle }) => sum + idle, 0),
      )
      this.set(
        { state: 'in_use' },
        sizes.reduce((sum, { inUse }) => sum + inUse, 0),
      )
    },
  })
  new Gauge({
    name: 'postern_http_connections',
    help: 'HTTP connections whose handshake is done, without control connections',
    labelNames: ['room'],
    registers: [registry],
    collect() {
      for (const [room, count] of sources.httpConnections()) this.set({ room }, count)
    },
  })
  new Counter({
    name: 'postern_connections_turned_away_total',
    help: 'Connections closed before they reached a room',
    labelNames: ['reason'],
    registers: [registry],
    collect() {
      this.reset()
      for (const [reason, count] of sources.turnedAway()) this.inc({ reason }, count)
    },
  })
}

/** OpenSSL and Node have hundreds of codes, and a stranger chooses among them. */
function handshakeReason(code: string): string {
  if (code === 'CERT_HAS_EXPIRED' || code === 'CERT_NOT_YET_VALID') return 'not_valid_now'
  if (code === 'ERR_SSL_PEER_DID_NOT_RETURN_A_CERTIFICATE') return 'no_certificate'
  if (code === 'ECONNRESET' || code === 'EPIPE') return 'left'
  if (code === 'ERR_TLS_HANDSHAKE_TIMEOUT') return 'late'
  if (isUntrusted(code)) return 'untrusted'
  return code.startsWith('ERR_SSL_') ? 'protocol' : 'other'
}
