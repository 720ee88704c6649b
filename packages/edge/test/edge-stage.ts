import { createHash, generateKeyPairSync, type KeyObject, randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import type http from 'node:http'
import https from 'node:https'
import { tmpdir } from 'node:os'
import path from 'node:path'
import tls, { type TLSSocket } from 'node:tls'
import { RENEW_PATH } from '@postern/shared/api/workloads'
import { createCsr } from '@postern/shared/certs/csr'
import { type EmailAddress, parseEmailAddress } from '@postern/shared/email'
import type { PosternError } from '@postern/shared/errors'
import type { AllowList, Identity } from '@postern/shared/identity'
import type { Logger } from '@postern/shared/logger'
import { lookupHost } from '@postern/shared/lookup-host'
import { CONTROL_PATH, CONTROL_SUBPROTOCOL } from '@postern/shared/protocol/connector-control'
import { ALPN_DATA, ALPN_FLOW, type ControlType } from '@postern/shared/protocol/frames'
import { parseServiceLabel } from '@postern/shared/service-label'
import { FramedEnd } from '@postern/shared/stream/framed-end'
import { calculateJwkThumbprint, exportJWK, SignJWT } from 'jose'
import type { Kysely } from 'kysely'
import { WebSocket } from 'ws'
import type { AuditEvent } from '../src/audit/event.ts'
import { type Authorities, loadAuthorities } from '../src/ca/authorities.ts'
import { issueClientCertificate } from '../src/ca/issue-client.ts'
import { issueConnectorCertificate } from '../src/ca/issue-connector.ts'
import type { IssuedLeaf } from '../src/ca/leaf.ts'
import type { EdgeConfig, EdgeLimits } from '../src/config/config.ts'
import { type EdgeOverrides, type RunningEdge, startEdge } from '../src/edge.ts'
import { insertCertificate } from '../src/store/certificates.ts'
import { upsertIdentity } from '../src/store/identities.ts'
import { newId } from '../src/store/new-id.ts'
import { upsertOidcRecord } from '../src/store/oidc-records.ts'
import { openStore, type Store } from '../src/store/open.ts'
import type { Database } from '../src/store/schema.ts'
import { createService, type ServiceRecord } from '../src/store/services.ts'
import { createSession, type Session } from '../src/store/sessions.ts'

/** For tests: a whole edge over real TLS on loopback, with people, services and certificates put straight into its
 *  store, and the ends of its wires in the test's hands. */

export const DOMAIN = 'edge.localhost'
export const NOBODY: AllowList = { emailDomains: [], emailAddresses: [], anyAuthenticated: false }
export const MYCORP: AllowList = { ...NOBODY, emailDomains: ['mycorp.com'] }

const LIMITS: EdgeLimits = {
  handshakeTimeoutMs: 10_000,
  maxClientHelloBytes: 16_384,
  maxPendingHandshakes: 64,
  maxPendingHandshakesPerAddress: 64,
  failedHandshakesPerMinute: 10_000,
  maxFlows: 100,
  maxHttpConnections: 1_000,
  maxHttpConnectionsPerAddress: 1_000,
  failedLoginsPerMinute: 10_000,
  maxDataConnectionsPerConnector: 100,
  routeTimeoutMs: 10_000,
  certificatesPerMinute: 10_000,
  flowsPerMinute: 10_000,
  adminLoginAgeMs: undefined,
}

export interface StageOptions {
  limits?: Partial<EdgeLimits>
  config?: Partial<EdgeConfig>
  overrides?: Omit<EdgeOverrides, 'db' | 'audit'>
}

/** A key with its certificate, and what was said about it to the store. */
export interface Credential extends IssuedLeaf {
  keyPem: string
  privateKey: KeyObject
}

export interface Person {
  identity: Identity
  session: Session
}

export class EdgeStage implements AsyncDisposable {
  readonly log: TestLog = new TestLog()
  readonly gates: Gates = new Gates()
  readonly clock: { aheadMs: number } = { aheadMs: 0 }
  readonly dataDir: string
  readonly config: EdgeConfig
  readonly #options: StageOptions
  readonly #sockets = new Set<{ destroy(): void } | { terminate(): void }>()
  edge!: RunningEdge
  authorities!: Authorities
  /** A connection of the test's own: it goes on when the edge waits at a gate. */
  store!: Store

  constructor(options: StageOptions) {
    this.#options = options
    this.dataDir = options.config?.dataDir ?? mkdtempSync(path.join(tmpdir(), 'postern-edge-'))
    this.config = {
      domain: DOMAIN,
      listen: { host: '127.0.0.1', port: 0 },
      acceptProxyProtocol: [],
      publicPort: undefined,
      dataDir: this.dataDir,
      store: `sqlite:${path.join(this.dataDir, 'edge.sqlite')}`,
      storeLoss: { policy: 'refuse_new', graceMs: 600_000 },
      identity: { kind: 'dev' },
      login: { device: false },
      operators: { ...NOBODY, emailDomains: ['mycorp.com', 'contractor.com'] },
      admins: { ...NOBODY, emailAddresses: ['admin@mycorp.com'] },
      auditors: { ...NOBODY, emailAddresses: ['auditor@mycorp.com'] },
      certificates: {
        ttlMs: 300_000,
        backdateMs: 300_000,
        sessionMs: 12 * 3_600_000,
        connectorTtlMs: 86_400_000,
        enrollTokenMaxTtlMs: 7 * 86_400_000,
        workloadMaxTtlMs: 90 * 86_400_000,
        workloadMaxLifetimeMs: 366 * 86_400_000,
      },
      ca: { crlLifetimeMs: 86_400_000, keyLock: undefined },
      ssh: {
        ttlMs: 300_000,
        hostTtlMs: 7 * 86_400_000,
        sharedPrincipal: true,
        revokeKeyIds: false,
        caKeyType: 'ed25519',
      },
      tls: undefined,
      limits: { ...LIMITS, ...options.limits },
      audit: {
        checkpointKeyFile: path.join(this.dataDir, 'audit', 'checkpoint.key'),
        checkpointRecords: 1_000,
        checkpointIntervalMs: 600_000,
        retentionMs: undefined,
        sinks: [],
      },
      metrics: undefined,
      ...options.config,
    }
  }

  async start(): Promise<this> {
    this.edge = await startEdge(this.config, {
      log: this.log,
      clock: () => this.now(),
      overrides: {
        ...this.#options.overrides,
        db: (db) => this.gates.watch(db),
        audit: (audit) => ({
          record: (event, row) => this.gates.recording(event, () => audit.record(event, row)),
          close: () => audit.close(),
          [Symbol.asyncDispose]: () => audit.close(),
        }),
      },
    })
    this.authorities = await loadAuthorities(this.dataDir)
    this.store = await openStore(this.config.store)
    return this
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const socket of this.#sockets) 'destroy' in socket ? socket.destroy() : socket.terminate()
    await this.edge.close()
    await this.store.close()
    rmSync(this.dataDir, { recursive: true, force: true, maxRetries: 20, retryDelay: 100 })
  }

  now(): number {
    return Date.now() + this.clock.aheadMs
  }

  async person(email: string, subject: string = email): Promise<Person> {
    const account = { issuer: 'https://idp.test', subject, email: parseEmailAddress(email), groups: [] }
    const { db } = this.store
    const identity = await upsertIdentity(db, account, this.now())
    const expiresAt = this.now() + this.config.certificates.sessionMs
    const session = await createSession(
      db,
      { identityId: identity.id, grantId: randomUUID(), kind: 'browser', clientAddress: 'test', expiresAt },
      this.now(),
    )
    return { identity, session }
  }

  service(
    owner: Person,
    allow: AllowList = MYCORP,
    label = `test-${serviceCount++}`,
  ): Promise<ServiceRecord> {
    return createService(
      this.store.db,
      { label: parseServiceLabel(label), name: label, type: 'tls', ownerId: owner.identity.id, allow },
      this.now(),
    )
  }

  async clientCertificate(
    { identity, session }: Person,
    service: ServiceRecord,
    lie: { email?: string; isUnknown?: boolean; serviceId?: string } = {},
  ): Promise<Credential> {
    const { privateKey, publicKey } = newKey()
    const issued = await issueClientCertificate(
      this.authorities.client,
      {
        domain: DOMAIN,
        email: (lie.email ?? identity.email) as EmailAddress,
        serviceId: lie.serviceId ?? service.id,
        publicKey,
        sessionExpiresAt: session.expiresAt,
        ttlMs: this.config.certificates.ttlMs,
        backdateMs: 300_000,
      },
      this.now(),
    )
    const facts = {
      kind: 'client' as const,
      sessionId: session.id,
      connectorId: undefined,
      machine: undefined,
    }
    if (!lie.isUnknown) await this.#note(issued, { ...facts, identityId: identity.id, serviceId: service.id })
    return withKey(issued, privateKey)
  }

  async connectorCertificate(
    { identity }: Person,
    service: ServiceRecord,
    { ttlMs = 86_400_000, connectorId = newId('con') } = {},
  ): Promise<Credential & { connectorId: string }> {
    const { privateKey, publicKey } = newKey()
    const issued = await issueConnectorCertificate(
      this.authorities.connector,
      { domain: DOMAIN, connectorId, publicKey, ttlMs, backdateMs: 300_000 },
      this.now(),
    )
    const facts = { kind: 'connector' as const, sessionId: undefined, connectorId, machine: 'test' }
    await this.#note(issued, { ...facts, identityId: identity.id, serviceId: service.id })
    return { ...withKey(issued, privateKey), connectorId }
  }

  /** A program's, as the service's owner makes it. */
  async workloadCertificate(
    owner: Person,
    service: ServiceRecord,
    wanted: { name?: string; ttlMs?: number; lifetimeMs?: number } = {},
  ): Promise<Credential & { workloadId: string }> {
    const { privateKey } = newKey()
    const body = { host: service.label, name: 'carbon-relay-3', csr: newCsr(privateKey), ...wanted }
    const { status, text, json } = await this.api('POST', '/v1/certificates/workload', { as: owner, body })
    if (status !== 201) throw new Error(text)
    return withKey(json, privateKey) as Credential & { workloadId: string }
  }

  /** Asks for a new one with a certificate that stands. */
  renewWorkload(shown: Credential, csr: string = newCsr(), accept = 'application/json'): Promise<ApiAnswer> {
    return this.api('POST', RENEW_PATH, { shown, text: csr, headers: { accept } })
  }

  /** A TLS connection to a room. Resolves after the client's side of the handshake; in TLS 1.3 a refused
   *  certificate shows itself later. */
  async dial(to: Dial): Promise<TLSSocket> {
    const socket = tls.connect(this.dialOptions(to))
    this.#sockets.add(socket)
    socket.on('error', () => {})
    await Promise.race([
      once(socket, 'secureConnect'),
      once(socket, 'close').then(() => Promise.reject(new Error('closed in the handshake'))),
    ])
    return socket
  }

  dialOptions({ serverName, alpn, credential }: Dial): tls.ConnectionOptions & { port: number } {
    return {
      host: '127.0.0.1',
      port: this.edge.port,
      servername: serverName,
      ca: this.authorities.edge.certificatePem,
      allowHalfOpen: true,
      lookup: lookupHost,
      ...(alpn ? { ALPNProtocols: alpn } : {}),
      ...(credential ? { key: credential.keyPem, cert: credential.certificate } : {}),
    } as tls.ConnectionOptions & { port: number }
  }

  /** A client that speaks `postern/1`. */
  async openFlow(service: ServiceRecord, credential: Credential): Promise<Peer> {
    const serverName = `${service.label}.${DOMAIN}`
    return new Peer(await this.dial({ serverName, alpn: [ALPN_FLOW], credential }))
  }

  /** The control connection of a connector; says nothing by itself. */
  async openControl(
    credential: Credential,
    { path = CONTROL_PATH, subprotocol = CONTROL_SUBPROTOCOL } = {},
  ): Promise<ControlPeer> {
    const ws = new WebSocket(`wss://mtls.${DOMAIN}:${this.edge.port}${path}`, [subprotocol], {
      ...this.dialOptions({ serverName: `mtls.${DOMAIN}`, credential }),
      perMessageDeflate: false,
    })
    this.#sockets.add(ws)
    const peer = new ControlPeer(ws)
    await once(ws, 'open')
    return peer
  }

  /** A connector that is attached, with `warm` data connections. */
  async attach(
    credential: Credential,
    { warm = 0, instanceId }: { warm?: number; instanceId?: string } = {},
  ): Promise<AttachedPeer> {
    const control = await this.openControl(credential)
    control.send({ ...ATTACH, instanceId })
    const attached = await control.next('attached')
    const attachmentId = attached.attachmentId as string
    const openData = async () => {
      const peer = new Peer(await this.dial({ serverName: DOMAIN, alpn: [ALPN_DATA], credential }))
      peer.end.send('hello', { version: 1, attachmentId })
      return peer
    }
    const data: Peer[] = []
    while (data.length < warm) data.push(await openData())
    return { control, attachmentId, attached, data, openData }
  }

  async api(method: string, target: string, options: ApiRequest = {}): Promise<ApiAnswer> {
    const body = options.text ?? (options.body === undefined ? undefined : JSON.stringify(options.body))
    const serverName = options.shown ? `mtls.${DOMAIN}` : DOMAIN
    const request = https.request({
      ...this.dialOptions({ serverName, credential: options.shown }),
      agent: false,
      method,
      path: target,
      headers: {
        host: `${serverName}:${this.edge.port}`,
        ...(options.as ? await this.#prove(method, target, options) : {}),
        ...(body === undefined ? {} : { 'content-length': String(Buffer.byteLength(body)) }),
        ...options.headers,
      },
    })
    request.end(body)
    const [response] = (await once(request, 'response')) as [http.IncomingMessage]
    request.on('error', () => {}) // the edge may close while more of a body comes than it reads
    let text = ''
    for await (const chunk of response) text += chunk
    const json = /json/.test(response.headers['content-type'] ?? '') ? JSON.parse(text) : undefined
    return { status: response.statusCode!, headers: response.headers, text, json, code: json?.error?.code }
  }

  /** What `/metrics` tells, where the configuration has it. */
  async scrape(): Promise<string> {
    const { port } = await this.log.until('metrics.ready')
    return (await fetch(`http://127.0.0.1:${port}/metrics`)).text()
  }

  /** A nonce out of an answer to a stranger. */
  async nonce(): Promise<string> {
    return String((await this.api('GET', '/v1/edge')).headers['dpop-nonce'])
  }

  async #prove(method: string, target: string, { as, nonce }: ApiRequest): Promise<Record<string, string>> {
    const { privateKey, publicKey } = newKey()
    const jwk = await exportJWK(publicKey)
    const token = createHash('sha256').update(randomUUID()).digest('base64url')
    const payload = { grantId: as!.session.grantId, jkt: await calculateJwkThumbprint(jwk) }
    await upsertOidcRecord(this.store.db, { model: 'AccessToken', id: token }, payload, this.now() + 600_000)
    const proof = await new SignJWT({
      jti: randomUUID(),
      htm: method,
      htu: `${this.edge.origin}${target.split('?', 1)[0]}`,
      iat: Math.floor(this.now() / 1_000),
      ath: createHash('sha256').update(token).digest('base64url'),
      nonce: nonce ?? (await this.nonce()),
    })
      .setProtectedHeader({ alg: 'ES256', typ: 'dpop+jwt', jwk })
      .sign(privateKey)
    return { authorization: `DPoP ${token}`, dpop: proof }
  }

  async #note(
    issued: IssuedLeaf,
    facts: Omit<Parameters<typeof insertCertificate>[1], keyof IssuedLeaf | 'issuedAt'>,
  ): Promise<void> {
    const { serial, keyHash, notBefore, notAfter } = issued
    await insertCertificate(this.store.db, {
      ...facts,
      serial,
      keyHash,
      notBefore,
      notAfter,
      issuedAt: this.now(),
    })
  }
}

let serviceCount = 1_000

export async function startEdgeStage(options: StageOptions = {}): Promise<EdgeStage> {
  return new EdgeStage(options).start()
}

export interface Dial {
  serverName: string
  alpn?: string[]
  credential?: Credential | undefined
}

export interface ApiRequest {
  as?: Person
  body?: unknown
  /** In place of `body`. */
  text?: string
  headers?: Record<string, string>
  nonce?: string
  /** Asks in the room of certificates, and shows this one. */
  shown?: Credential
}

export interface ApiAnswer {
  status: number
  headers: http.IncomingHttpHeaders
  text: string
  // biome-ignore lint/suspicious/noExplicitAny: tests look into it
  json: any
  code: string | undefined
}

export interface AttachedPeer {
  control: ControlPeer
  attachmentId: string
  attached: Record<string, unknown>
  data: Peer[]
  openData(): Promise<Peer>
}

export const ATTACH = {
  type: 'attach',
  version: 1,
  software: 'postern test',
  features: [],
  requires: [],
}

export function newKey(): { privateKey: KeyObject; publicKey: KeyObject } {
  return generateKeyPairSync('ec', { namedCurve: 'P-256' })
}

export function newCsr(privateKey: KeyObject = newKey().privateKey): string {
  return createCsr(privateKey)
}

function withKey(issued: IssuedLeaf, privateKey: KeyObject): Credential {
  const keyPem = privateKey.export({ type: 'pkcs8', format: 'pem' }).toString()
  return { ...issued, keyPem, privateKey }
}

/** The other end of a framed connection: everything it hears can be waited for. */
export class Peer {
  readonly socket: TLSSocket
  readonly end: FramedEnd
  readonly #heard: Heard = new Heard()
  received: Buffer = Buffer.alloc(0)
  hasEnded = false
  error: PosternError | undefined

  constructor(socket: TLSSocket) {
    this.socket = socket
    this.end = new FramedEnd(socket)
    this.end.receive({
      chunk: (bytes) => {
        this.received = Buffer.concat([this.received, bytes])
        this.#heard.tell()
      },
      end: () => {
        this.hasEnded = true
        this.#heard.tell()
      },
      drain: () => {},
      cut: (error) => {
        this.error = error
        this.#heard.tell()
      },
      control: (type, body) => {
        this.#controls.push({ type, body: body as Record<string, unknown> })
        this.#heard.tell()
      },
    })
    this.end.resume()
  }

  readonly #controls: { type: Exclude<ControlType, 'error'>; body: Record<string, unknown> }[] = []

  text(expected: string): Promise<string> {
    return this.#heard.until(
      () => (this.received.toString().includes(expected) ? this.received.toString() : undefined),
      () => `text ${expected}, has ${this.received} and ${this.error}`,
    )
  }

  /** The next ok, hello or open. */
  control(): Promise<{ type: string; body: Record<string, unknown> }> {
    return this.#heard.until(
      () => this.#controls.shift(),
      () => `a control frame, has ${this.error}`,
    )
  }

  ended(): Promise<true> {
    return this.#heard.until(
      () => this.hasEnded || undefined,
      () => `an end, has ${this.error}`,
    )
  }

  /** What broke it: an error frame, or `FLOW_CUT`. */
  cut(): Promise<PosternError> {
    return this.#heard.until(
      () => this.error,
      () => `a cut, has ${this.received}`,
    )
  }

  get hasControls(): boolean {
    return this.#controls.length > 0
  }
}

/** The connector's end of a control connection. */
export class ControlPeer {
  readonly ws: WebSocket
  readonly #heard: Heard = new Heard()
  readonly messages: Record<string, unknown>[] = []
  closed: number | undefined

  constructor(ws: WebSocket) {
    this.ws = ws
    ws.on('error', () => {})
    ws.on('message', (data) => {
      this.messages.push(JSON.parse(String(data)))
      this.#heard.tell()
    })
    ws.on('close', (code) => {
      this.closed = code
      this.#heard.tell()
    })
  }

  send(message: unknown): void {
    this.ws.send(typeof message === 'string' ? message : JSON.stringify(message))
  }

  next(type: string): Promise<Record<string, unknown>> {
    return this.#heard.until(
      () => {
        const index = this.messages.findIndex((message) => message.type === type)
        return index < 0 ? undefined : this.messages.splice(index, 1)[0]
      },
      () => `${type}, has ${JSON.stringify(this.messages)} and close code ${this.closed}`,
    )
  }

  close(): Promise<number> {
    return this.#heard.until(
      () => this.closed,
      () => 'the close',
    )
  }
}

const PATIENCE_MS = 15_000

/** Waits for what is told by events. */
export class Heard {
  readonly #waiting = new Set<() => void>()

  tell(): void {
    for (const look of [...this.#waiting]) look()
  }

  until<T>(find: () => T | undefined, missing: () => string): Promise<T> {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#waiting.delete(look)
        reject(new Error(`waited in vain for ${missing()}`))
      }, PATIENCE_MS)
      const look = () => {
        const found = find()
        if (found === undefined) return
        clearTimeout(timer)
        this.#waiting.delete(look)
        resolve(found)
      }
      this.#waiting.add(look)
      look()
    })
  }
}

export class TestLog implements Logger {
  readonly #heard: Heard = new Heard()
  readonly lines: { level: string; event: string; fields: Record<string, unknown> }[] = []
  readonly debug: Logger['debug'] = this.#at('debug')
  readonly info: Logger['info'] = this.#at('info')
  readonly warn: Logger['warn'] = this.#at('warn')
  readonly error: Logger['error'] = this.#at('error')

  events(event: string): Record<string, unknown>[] {
    return this.lines.filter((line) => line.event === event).map((line) => line.fields)
  }

  until(event: string): Promise<Record<string, unknown>> {
    return this.#heard.until(
      () => this.events(event)[0],
      () => `the log line ${event}`,
    )
  }

  #at(level: string): Logger['info'] {
    return (event, fields = {}) => {
      this.lines.push({ level, event, fields })
      this.#heard.tell()
    }
  }
}

interface Gate {
  at: string
  about: string | undefined
  reached: PromiseWithResolvers<void>
  opened: PromiseWithResolvers<void>
}

export interface HeldGate {
  /** Resolves once the edge waits at the gate. */
  reached: Promise<void>
  open(): void
  fail(error: Error): void
}

/** Stops the edge between two steps: after it has read one row of a table, or before and after it has recorded an
 *  event. */
export class Gates {
  /** Waited for before and after every read of one row and every record: puts steps in another order. */
  delay: (() => Promise<void>) | undefined
  /** No row gets into this table: the disk is full. */
  fullTable: string | undefined
  /** Nothing is read from this table: the store is out of reach. */
  unreadableTable: string | undefined
  readonly events: AuditEvent[] = []
  readonly #heard: Heard = new Heard()
  readonly #gates: Gate[] = []

  /** @param at `read certificates`, `record flow.decided`, `recorded flow.decided`
   *  @param about a value the row is read by: connectors, data connections and requests read the same tables */
  hold(at: string, about?: string): HeldGate {
    const gate: Gate = { at, about, reached: Promise.withResolvers(), opened: Promise.withResolvers() }
    gate.opened.promise.catch(() => {})
    this.#gates.push(gate)
    return {
      reached: gate.reached.promise,
      open: () => gate.opened.resolve(),
      fail: (error) => gate.opened.reject(error),
    }
  }

  recorded<T extends AuditEvent['type']>(
    type: T,
    matches: (event: Extract<AuditEvent, { type: T }>) => boolean = () => true,
  ): Promise<Extract<AuditEvent, { type: T }>> {
    const fits = (event: AuditEvent) => event.type === type && matches(event as never)
    return this.#heard.until(
      () => this.events.find(fits) as Extract<AuditEvent, { type: T }> | undefined,
      () => `the record ${type}, has ${this.events.map((event) => event.type).join(', ')}`,
    )
  }

  of<T extends AuditEvent['type']>(type: T): Extract<AuditEvent, { type: T }>[] {
    return this.events.filter((event) => event.type === type) as Extract<AuditEvent, { type: T }>[]
  }

  async recording(event: AuditEvent, record: () => Promise<void>): Promise<void> {
    await this.delay?.()
    await this.#pass(`record ${event.type}`)
    await record()
    this.events.push(event)
    this.#heard.tell()
    await this.#pass(`recorded ${event.type}`)
    await this.delay?.()
  }

  watch(db: Kysely<Database>): Kysely<Database> {
    return new Proxy(db, {
      get: (target, key) => {
        const value = Reflect.get(target, key, target)
        if (typeof value !== 'function') return value
        if (key === 'insertInto') {
          return (table: string) => {
            if (table === this.fullTable) throw new Error('database or disk is full')
            return value.call(target, table)
          }
        }
        if (key !== 'selectFrom') return value.bind(target)
        return (table: string) => {
          if (table === this.unreadableTable) throw new Error('the store is out of reach')
          return this.#watchQuery(value.call(target, table), table)
        }
      },
    })
  }

  #watchQuery<Q extends object>(query: Q, table: string, readBy: readonly unknown[] = []): Q {
    return new Proxy(query, {
      get: (target, key) => {
        const value = Reflect.get(target, key, target)
        if (typeof value !== 'function') return value
        return (...args: unknown[]) => {
          if (key === 'executeTakeFirst') return this.#read(() => value.apply(target, args), table, readBy)
          const result = value.apply(target, args)
          const values = key === 'where' ? [...readBy, args[2]] : readBy
          return typeof result?.executeTakeFirst === 'function'
            ? this.#watchQuery(result, table, values)
            : result
        }
      },
    })
  }

  async #read<T>(read: () => Promise<T>, table: string, readBy: readonly unknown[]): Promise<T> {
    await this.delay?.()
    const row = await read()
    await this.#pass(`read ${table}`, readBy)
    await this.delay?.()
    return row
  }

  async #pass(at: string, readBy: readonly unknown[] = []): Promise<void> {
    const fits = ({ about }: Gate) => about === undefined || readBy.includes(about)
    const index = this.#gates.findIndex((gate) => gate.at === at && fits(gate))
    const [gate] = index < 0 ? [] : this.#gates.splice(index, 1)
    gate?.reached.resolve()
    await gate?.opened.promise
  }
}
