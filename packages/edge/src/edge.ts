/** Builds the edge from its parts: the only place that knows all of them. */
import type { AddressInfo, Server } from 'node:net'
import { PosternError } from '@postern/shared/errors'
import type { Logger } from '@postern/shared/logger'
import { labelOfHost } from '@postern/shared/service-label'
import { VERSION } from '@postern/shared/version'
import type { Kysely } from 'kysely'
import { keepAudit } from './audit/keep.ts'
import { AuditReads } from './audit/reads.ts'
import type { AuditLog } from './audit/record.ts'
import { openAuthorities } from './ca/authorities.ts'
import { FlowIdentityKeys } from './ca/flow-identity-keys.ts'
import { IssuingThread } from './ca/issuing-thread.ts'
import { LiveAuthorities } from './ca/live-authorities.ts'
import { LiveSshAuthorities } from './ca/live-ssh-authorities.ts'
import { type EdgeConfig, publicOrigin } from './config/config.ts'
import { type ControlTimings, openControl } from './connectors/control.ts'
import { acceptDataConnection } from './connectors/data-connection.ts'
import type { ConnectorTrust } from './connectors/identify-connector.ts'
import { ConnectorRegistry } from './connectors/registry.ts'
import { drain } from './drain.ts'
import { carryChange, readEverythingAgain } from './fleet/carry.ts'
import { ALONE, type FleetTimings, joinFleet } from './fleet/fleet.ts'
import { watchKeys } from './fleet/key-watch.ts'
import { heedOtherPrograms } from './fleet/other-programs.ts'
import { openOwnKeys } from './fleet/own-keys.ts'
import { openEnforcement } from './flow/enforce.ts'
import { serveFlow } from './flow/flow.ts'
import { openIngress } from './flow/ingress.ts'
import { LiveFlows } from './flow/live-flows.ts'
import { openRooms } from './flow/rooms.ts'
import { endFlowsOfSilent } from './flow/silent-connector.ts'
import { findTrustedCas } from './flow/trusted-cas.ts'
import { createAnswers } from './http/answer.ts'
import type { ApiParts } from './http/parts.ts'
import { openRate } from './limits/rate.ts'
import { type OnLimited, Strangers } from './limits/strangers.ts'
import { createLogin } from './login/login.ts'
import { createMetrics } from './metrics.ts'
import { openMetricsListener } from './metrics-listener.ts'
import { readRoles } from './policy/roles.ts'
import { openServerIdentity } from './server-identity.ts'
import { StatusFile } from './status.ts'
import { openStore } from './store/open.ts'
import { useOnce } from './store/replay-guards.ts'
import type { Database } from './store/schema.ts'
import { watchStore } from './store-watch.ts'
import { isTransport, openTransport } from './transport/transport.ts'

export interface EdgeParts {
  log: Logger
  /** Epoch milliseconds. */
  clock?: () => number
  overrides?: EdgeOverrides
}

/** For tests: a store or audit log that fails or takes its time, and connectors that are given up sooner. */
export interface EdgeOverrides {
  db?: (db: Kysely<Database>) => Kysely<Database>
  audit?: (audit: AuditLog) => AuditLog
  controlTimings?: Partial<ControlTimings>
  fleetTimings?: Partial<FleetTimings>
  helloTimeoutMs?: number
}

export interface RunningEdge {
  /** `https://edge.example.com`, with the port where it is not 443. */
  origin: string
  port: number
  /** The internal CA that clients must trust; undefined with a public certificate. */
  caFile: string | undefined
  /** `sha256:HEX` of that CA. */
  caFingerprint: string | undefined
  /** It shows one of its internal CA, which nobody trusts who waits for the one of a public CA. */
  isCertificateAwaited: boolean
  /** Takes no new flows, lets live ones finish until the deadline, ends the rest.
   *  @returns whether all of them finished */
  close(options?: { deadlineMs: number }): Promise<{ drained: boolean }>
}

const PURGE_EVERY_MS = 10 * 60_000

/** Starts an edge and resolves once it listens.
 *  @throws CONFIG_INVALID · STATE_INVALID · whatever `listen` throws (EADDRINUSE, EACCES) as CONFIG_INVALID ·
 *    EDGE_KEYS_DIFFER */
export async function startEdge(
  config: EdgeConfig,
  { log, clock = Date.now, overrides = {} }: EdgeParts,
): Promise<RunningEdge> {
  const { domain, limits } = config
  await using opened = new AsyncDisposableStack() // closes what is open when a later step fails
  const metrics = createMetrics({
    connectionsOpen: () => ingress.size.open,
    handshakesPending: () => ingress.size.pending,
    turnedAway: () => ingress.turnedAway,
    httpConnections: () => rooms.httpConnections(),
    transportConnections: () => transport.size,
    flowsLive: () => live.size,
    storeLost: () => Number(storeWatch.isLost),
    changesNotHeard: () => Number(fleet.isDeaf),
    otherEdges: () => fleet.others,
    edgesWithOtherKeys: () => keyWatch?.differing ?? 0,
    flowsNotCovered: () => live.countNotCovered(),
    pools: () => connectors.all().map(({ pool }) => pool),
    controlConnections: () => control.size,
    auditWaiting: () => kept.waiting,
    auditSinkLags: () => kept.sinkLags(),
    serverCertificate: () => serverIdentity.describe(),
    now: clock,
  })
  await openAuthorities(config.dataDir, clock(), { lock: config.ca.keyLock, domain })
  const caParts = { lock: config.ca.keyLock, domain, clock, log }
  const authorities = opened.use(await new LiveAuthorities(config.dataDir, caParts).start())
  const sshAuthorities = opened.use(
    await LiveSshAuthorities.open(config.dataDir, config.ssh.caKeyType, caParts),
  )
  const identityKeys = opened.use(await FlowIdentityKeys.open(config.dataDir, caParts))
  const issuing = opened.use(new IssuingThread(authorities.client, sshAuthorities.user))
  const store = opened.use(await openStore(config.store, clock, metrics.observeQuery))
  const ownKeys = await openOwnKeys({ config, authorities, sshAuthorities, identityKeys })
  const edge = store.changes?.edge
  const keyWatch =
    edge === undefined
      ? undefined
      : opened.use(await watchKeys({ db: store.db, edge, keys: ownKeys, clock, log }))
  const db = overrides.db?.(store.db) ?? store.db
  const kept = opened.use(await keepAudit(config, { db, metrics, log, clock, override: overrides.audit }))
  const audit = kept.log
  let origin = ''
  let isStopping = false

  const roles = readRoles(config)
  const connectors = new ConnectorRegistry()
  const live = new LiveFlows(clock, metrics.observeFlowSetup)
  const onLimited: OnLimited = (limit, clientAddress) => {
    metrics.countAddressLimited(limit)
    if (limit === 'failed_logins') return // refused with words: whoever answers records it
    audit
      .record({ type: 'address.limited', code: 'RATE_LIMITED', limit, clientAddress })
      .catch((error: unknown) => log.warn('address.not_counted', { error }))
  }
  const strangers = new Strangers({ limits, onLimited })
  const observeLatency = metrics.observeRevocation
  const onWithdrawFailed = (error: unknown) => {
    metrics.countSshWithdrawFailed()
    log.error('ssh.withdraw_failed', { error })
  }
  const enforcement = opened.use(
    openEnforcement({ db, live, connectors, clock, observeLatency, onWithdrawFailed }),
  )
  const trust: ConnectorTrust = {
    db,
    domain,
    get connectorCas() {
      return authorities.certificates('connector')
    },
    roles,
    clock,
  }
  const carried = { enforcement, live, connectors, trust }
  const fleet = !store.changes
    ? ALONE
    : opened.use(
        await joinFleet({
          feed: store.changes,
          carry: (change) => carryChange(change, carried),
          readEverything: () => readEverythingAgain(carried),
          log,
          timings: overrides.fleetTimings,
        }),
      )
  if (store.hasOtherWritten) {
    const readEverything = () => readEverythingAgain(carried)
    opened.use(heedOtherPrograms({ hasWritten: store.hasOtherWritten, readEverything, log }))
  }
  const storeWatch = opened.use(
    watchStore({
      ...config.storeLoss,
      probe: async () => fleet.isTrusted && (await canWrite(store.db, clock())),
      endFlows: (reason) => live.cutWhere({}, reason),
      log,
    }),
  )
  const login = await createLogin({
    config,
    origin: () => origin,
    db,
    clock,
    log,
    record: (event) => audit.record(event),
    strangers,
    identityUpdated: enforcement.identityUpdated,
    countRefused: metrics.countApiRefused,
  })
  login.onSessionEnded((session) => enforcement.sessionEnded(session.id))

  const apiParts: ApiParts = {
    config,
    origin: () => origin,
    version: VERSION,
    db,
    clock,
    log,
    audit,
    auditReads: new AuditReads(audit, clock),
    login,
    roles,
    issuing,
    authorities,
    edgeRoots: () => (config.tls ? [] : authorities.edgeCa.roots),
    sshAuthorities,
    identityKeys,
    connectors,
    connectorIssuer: {
      trust,
      get authority() {
        return authorities.connector
      },
      ttlMs: config.certificates.connectorTtlMs,
      backdateMs: config.certificates.backdateMs,
      origin: () => origin,
    },
    workloadIssuer: {
      db,
      domain,
      get authority() {
        return authorities.workload
      },
      get cas() {
        return authorities.certificates('workload')
      },
      clock,
      backdateMs: config.certificates.backdateMs,
      maxTtlMs: config.certificates.workloadMaxTtlMs,
      maxLifetimeMs: config.certificates.workloadMaxLifetimeMs,
    },
    mtlsOrigin: () => origin.replace('https://', 'https://mtls.'),
    live,
    enforcement,
    fleet,
    certificateRate: openRate('certificates', limits.certificatesPerMinute),
    strangers,
    onProven(socket) {
      if (socket.remoteAddress !== undefined) strangers.welcome(socket.remoteAddress)
      rooms.settleHttp(socket)
    },
    countRefused: metrics.countApiRefused,
    isReady: () => (isStopping || storeWatch.isLost ? Promise.resolve(false) : canWrite(db, clock())),
  }
  const { onHttps, onMtls } = createAnswers(apiParts, storeWatch)

  const control = openControl({
    trust,
    registry: connectors,
    audit,
    strangers,
    limits,
    log,
    isStopping: () => isStopping,
    timings: overrides.controlTimings,
    onSilent: (attachment, returnMs) => endFlowsOfSilent(attachment, { live, connectors, returnMs }),
    onSuperseded: enforcement.connectorRevoked,
    onCrowdedOut: metrics.countControlCrowdedOut,
  })
  const flowParts = {
    domain,
    get clientCas() {
      return authorities.certificates('client')
    },
    get workloadCas() {
      return authorities.certificates('workload')
    },
    db,
    live,
    enforcement,
    connectors,
    audit,
    strangers,
    limits,
    get identityKey() {
      return identityKeys.signing
    },
    origin: () => origin,
    flowRate: openRate('flows', limits.flowsPerMinute),
    log,
    clock,
    isStopping: () => isStopping,
    isStoreLost: () => storeWatch.isLost,
  }
  const serverIdentity = opened.use(
    await openServerIdentity(config, authorities.edgeCa, {
      dataDir: config.dataDir,
      clock,
      log,
      fleet: { store, isStoreLost: () => storeWatch.isLost },
      countRenewed: metrics.countServerCertificateRenewed,
      countFailed: metrics.countServerCertificateFailed,
    }),
  )
  const countCrowd = (clientHost: string) => {
    strangers.countHandshake(clientHost) // it had no other use than to be one more
    onLimited('http_connections', clientHost)
  }
  const rooms = openRooms({
    domain,
    serverIdentity: serverIdentity.current,
    alpnChallenge: serverIdentity.alpnChallenge,
    get clientCa() {
      return authorities.bundle('client')
    },
    get connectorCa() {
      return authorities.bundle('connector')
    },
    get workloadCa() {
      return authorities.bundle('workload')
    },
    async findTrustedCas(host) {
      const label = storeWatch.isLost ? undefined : labelOfHost(host, domain)
      const trusted = label === undefined ? undefined : await findTrustedCas(db, label)
      return trusted?.cas.map(({ certificate }) => certificate) ?? []
    },
    handshakeTimeoutMs: limits.handshakeTimeoutMs,
    maxHttpConnections: limits.maxHttpConnections,
    maxHttpConnectionsPerAddress: limits.maxHttpConnectionsPerAddress,
    onHttps,
    onMtls,
    isHttpsUpgrade: isTransport,
    onHttpsUpgrade: (request, socket, head) => transport.upgrade(request, socket, head),
    onMtlsUpgrade: control.upgrade,
    onFlow(entered) {
      serveFlow(entered, flowParts).catch((error: unknown) => log.error('flow.failed', { error }))
    },
    onData(entered) {
      const { helloTimeoutMs } = overrides
      const dataParts = { trust, registry: connectors, audit, strangers, log, helloTimeoutMs }
      acceptDataConnection(entered, dataParts).catch((error: unknown) =>
        log.error('connector.data_failed', { error }),
      )
    },
    onHandshake: metrics.observeHandshake,
    onHttpRefused(refused) {
      metrics.countHttpRefused(refused)
      const { reason, clientHost } = refused
      if (reason === 'too_many_of_address' && clientHost !== undefined) countCrowd(clientHost)
    },
    onRefused({ room, code, clientHost }) {
      metrics.countHandshakeRefused({ room, code })
      log.debug('handshake.refused', { room, code, clientAddress: clientHost })
      if (room === 'https' || room === 'acme' || LEFT.has(code)) return // nobody shows a certificate there
      const type = room === 'flow' ? 'flow.refused' : 'connector.refused'
      const refused = code === 'CERT_HAS_EXPIRED' ? 'CERTIFICATE_EXPIRED' : 'CERTIFICATE_REFUSED'
      audit.record({ type, code: refused, clientAddress: clientHost }).catch(() => {})
    },
  })
  serverIdentity.onRenewed(rooms.replaceServerIdentity)
  const replaceKeys = () => issuing.replaceKeys(authorities.client, sshAuthorities.user)
  sshAuthorities.onChanged(replaceKeys)
  authorities.onChanged(() => {
    replaceKeys()
    rooms.replaceServerIdentity(serverIdentity.current) // who is believed is read with it
    serverIdentity
      .useCa(authorities.edgeCa)
      .catch((error: unknown) => log.error('edge.certificate_renewal_failed', { error }))
  })
  const { acceptProxyProtocol } = config
  const chooseRoom = rooms.choose
  const ingress = openIngress({ chooseRoom, acceptProxyProtocol, limits, strangers, onLimited, log })

  const transport = await openTransport({
    maxConnections: limits.maxFlows,
    maxPerAddress: limits.maxHttpConnectionsPerAddress,
    isStopping: () => isStopping,
    enterInside: ingress.enterInside,
    onRefused(refused) {
      metrics.countTransportRefused(refused)
      if (refused.reason === 'too_many_of_address') countCrowd(refused.clientHost)
    },
    log,
  })
  opened.defer(() => transport.close())

  if (config.metrics) {
    const listener = opened.use(await openMetricsListener(config.metrics, metrics.registry))
    log.info('metrics.ready', { port: listener.port })
  }
  const port = await listen(ingress.server, config)
  origin = publicOrigin(config, port)
  const statusFile = opened.use(new StatusFile(config.dataDir, log))
  const startedAt = clock()
  const tellStatus = () => {
    const certificate = serverIdentity.describe()
    const keys = keyWatch?.describe()
    statusFile.write({ pid: process.pid, origin, version: VERSION, startedAt, certificate, keys })
  }
  serverIdentity.onStatus(tellStatus)
  keyWatch?.onStatus(tellStatus)
  tellStatus()
  serverIdentity.start()
  const purge = setInterval(() => {
    store.purge().catch((error: unknown) => log.warn('store.purge_failed', { error }))
  }, PURGE_EVERY_MS)
  kept.startPruning()
  log.info('edge.ready', { origin, port, auditChain: kept.chain, auditSigner: kept.signer })
  const keptOpen = opened.move()

  const drainAndClose = async (deadlineMs: number) => {
    isStopping = true
    const drained = await drain({ connectors, live, ingress, control, rooms, transport }, deadlineMs)
    clearInterval(purge)
    await keptOpen.disposeAsync()
    log.info('edge.stopped', { drained })
    return { drained }
  }
  let closing: Promise<{ drained: boolean }> | undefined
  const close = ({ deadlineMs } = { deadlineMs: 0 }) => {
    closing ??= drainAndClose(deadlineMs)
    return closing
  }
  const { caFile, caFingerprint } = serverIdentity
  const isCertificateAwaited = serverIdentity.describe().isAwaited
  return { origin, port, caFile, caFingerprint, isCertificateAwaited, close }
}

/** Codes of handshakes that nobody refused: the client went away or never finished. */
const LEFT: ReadonlySet<string> = new Set(['ECONNRESET', 'ERR_TLS_HANDSHAKE_TIMEOUT'])

function listen(server: Server, { listen: { host, port } }: EdgeConfig): Promise<number> {
  return new Promise((resolve, reject) => {
    const onError = (cause: NodeJS.ErrnoException) =>
      reject(
        new PosternError('CONFIG_INVALID', `the edge cannot listen on ${host}:${port} (${cause.code})`, {
          hint: 'choose another listen address, or stop what uses this one',
          cause,
        }),
      )
    server.once('error', onError)
    server.listen({ host, port, backlog: 4_096 }, () => {
      server.off('error', onError)
      resolve((server.address() as AddressInfo).port)
    })
  })
}

/** Whether the store, and with it the audit log, takes a write: one in five seconds, however often it is asked. */
async function canWrite(db: Kysely<Database>, now: number): Promise<boolean> {
  return useOnce(db, `ready:${Math.floor(now / 5_000)}`, now + 60_000).then(
    () => true,
    () => false,
  )
}
