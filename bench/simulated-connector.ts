import { generateKeyPairSync, randomUUID } from 'node:crypto'
import net from 'node:net'
import tls, { type SecureContext } from 'node:tls'
import { Backoff } from '@postern/shared/backoff'
import { createCsr } from '@postern/shared/certs/csr'
import {
  type AttachMessage,
  CONTROL_PATH,
  CONTROL_SUBPROTOCOL,
  CONTROL_VERSION,
} from '@postern/shared/protocol/connector-control'
import { ALPN_DATA } from '@postern/shared/protocol/frames'
import { FramedEnd } from '@postern/shared/stream/framed-end'
import { WebSocket } from 'ws'
import type { EdgeProcess } from '../test/support/edge-process.ts'
import type { ApiClient } from './api-client.ts'

/** Connectors by the thousand in this process, with the real protocol and the waits of the real one: a control
 *  connection, the data connections that the edge wants warm, and back again when they are lost. */

/** As `postern connect` waits between attempts. */
const FIRST_RETRY_MS = 500
const MAX_RETRY_MS = 30_000
const FIRST_DATA_RETRY_MS = 250
const MAX_DATA_RETRY_MS = 10_000
const ATTACH_TIMEOUT_MS = 10_000

export interface ConnectorIdentity {
  key: string
  cert: string
}

/** Claims a service and registers a connector for it. */
export async function registerConnector(api: ApiClient, name: string): Promise<ConnectorIdentity> {
  const allow = { emailDomains: ['mycorp.com'], emailAddresses: [], anyAuthenticated: false }
  const { service } = await api.post('/v1/services', { name, type: 'tls', allow })
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const wanted = { serviceId: service.id, csr: createCsr(privateKey), machine: 'bench' }
  const { certificate } = await api.post('/v1/connectors', wanted)
  return { key: privateKey.export({ type: 'pkcs8', format: 'pem' }) as string, cert: certificate }
}

/** The edge that all of them want to reach, wherever it is now. */
export interface Target extends Pick<EdgeProcess, 'domain' | 'port'> {
  /** PEM. */
  ca: string
}

/** What a simulated connector reads of the edge's messages. */
interface EdgeSays {
  type: string
  attachmentId?: string
  /** Data connections to keep warm. */
  warm?: number
  /** More data connections, now. */
  count?: number
}

export class SimulatedConnector implements Disposable {
  readonly #target: Target
  readonly #localAddress: string
  readonly #context: SecureContext
  readonly #instanceId: string = randomUUID()
  readonly #backoff = new Backoff(FIRST_RETRY_MS, MAX_RETRY_MS)
  readonly #dataBackoff = new Backoff(FIRST_DATA_RETRY_MS, MAX_DATA_RETRY_MS)
  #attachmentId = ''
  #ws: WebSocket | undefined
  #retry: NodeJS.Timeout | undefined
  #isOver = false
  #whenReady = Promise.withResolvers<void>()
  /** Attempts that came to nothing, since it was ready last. */
  failures = 0
  /** When its first warm data connection stood; undefined while it is not ready. `performance.now()` */
  readyAt: number | undefined

  /** @param localAddress where it comes from: machines of a fleet have addresses of their own */
  constructor(target: Target, identity: ConnectorIdentity, localAddress: string) {
    this.#target = target
    this.#localAddress = localAddress
    this.#context = tls.createSecureContext({ ...identity, ca: target.ca, minVersion: 'TLSv1.3' })
    this.#attach()
  }

  /** Resolves when it can serve a flow, now or later. */
  ready(): Promise<void> {
    return this.#whenReady.promise
  }

  [Symbol.dispose](): void {
    this.#isOver = true
    clearTimeout(this.#retry)
    this.#ws?.terminate()
  }

  #attach(): void {
    const { domain, port } = this.#target
    // ws hands them on to node:tls, and its types do not know
    const more = { servername: `mtls.${domain}`, secureContext: this.#context } as object
    const ws = new WebSocket(`wss://127.0.0.1:${port}${CONTROL_PATH}`, [CONTROL_SUBPROTOCOL], {
      ...more,
      localAddress: this.#localAddress,
      headers: { host: `mtls.${domain}:${port}` },
      perMessageDeflate: false,
      handshakeTimeout: ATTACH_TIMEOUT_MS,
    })
    this.#ws = ws
    ws.on('error', () => {}) // 'close' tells
    ws.on('open', () => ws.send(JSON.stringify(this.#attachMessage())))
    ws.on('message', (data) => this.#hear(JSON.parse(String(data)), ws))
    ws.on('close', () => this.#lost())
  }

  #attachMessage(): AttachMessage & { type: 'attach' } {
    const named = { features: [], requires: [], instanceId: this.#instanceId }
    return { type: 'attach', version: CONTROL_VERSION, software: 'bench', ...named }
  }

  #hear(message: EdgeSays, ws: WebSocket): void {
    if (message.type === 'attached') this.#attachmentId = message.attachmentId!
    const count = message.type === 'attached' ? message.warm : message.type === 'want' ? message.count : 0
    for (let opened = 0; opened < (count ?? 0); opened++) this.#openData(ws)
  }

  /** Opened again, after a wait, for as long as its control connection stands. */
  #openData(ws: WebSocket): void {
    if (ws.readyState !== WebSocket.OPEN) return
    const { domain, port } = this.#target
    const tcp = net.connect({
      host: '127.0.0.1',
      port,
      localAddress: this.#localAddress,
      allowHalfOpen: true,
    })
    const secureContext = this.#context
    const socket = tls.connect({ socket: tcp, servername: domain, secureContext, ALPNProtocols: [ALPN_DATA] })
    const leave = () => void socket.destroy()
    const end = new FramedEnd(socket)
    end.receive({ chunk() {}, end() {}, drain() {}, cut: leave })
    end.send('hello', { version: 1, attachmentId: this.#attachmentId })
    end.resume()
    ws.once('close', leave)
    socket.once('secureConnect', () => this.#ready())
    socket.once('close', () => {
      ws.off('close', leave)
      setTimeout(() => this.#openData(ws), this.#dataBackoff.next()).unref()
    })
  }

  #ready(): void {
    if (this.readyAt !== undefined) return
    this.readyAt = performance.now()
    this.#backoff.reset()
    this.#dataBackoff.reset()
    this.#whenReady.resolve()
  }

  #lost(): void {
    if (this.#isOver) return
    if (this.readyAt === undefined) this.failures += 1
    else {
      this.failures = 0
      this.#whenReady = Promise.withResolvers()
    }
    this.readyAt = undefined
    this.#retry = setTimeout(() => this.#attach(), this.#backoff.next())
  }
}
