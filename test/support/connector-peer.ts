import { globSync, readFileSync, rmSync } from 'node:fs'
import path from 'node:path'
import type { TLSSocket } from 'node:tls'
import { FramedEnd } from '@postern/shared/stream/framed-end'
import { WebSocket } from 'ws'
import type { EdgeProcess } from './edge-process.ts'
import { dial, type KeyAndCertificate } from './tls-peer.ts'
import { within } from './until.ts'

/** A connector that is not ours and does as it is told: right messages, and wrong ones. */

export interface StoredConnector {
  identity: KeyAndCertificate
  serial: string
  connectorId: string
}

/** What the processes of `postern connect` keep for a service, as somebody sees it who can read their files. */
export function readStoredConnectors(home: string, label: string): StoredConnector[] {
  for (const file of globSync(path.join(home, 'edges', '*', 'connectors', '*', 'service.json'))) {
    if (JSON.parse(readFileSync(file, 'utf8')).label !== label) continue
    return globSync(path.join(path.dirname(file), '*', 'certificate.json'))
      .sort()
      .map((slot) => {
        const { certificatePem, keyPem, serial, connectorId } = JSON.parse(readFileSync(slot, 'utf8'))
        return { identity: { cert: certificatePem, key: keyPem }, serial, connectorId }
      })
  }
  throw new Error(`no connector of ${label} in ${home}`)
}

/** As on a server without a person: the connectors' certificates stay. */
export function forgetSessions(home: string): void {
  for (const file of globSync(path.join(home, 'edges', '*', 'session.json'))) rmSync(file)
}

/** A data connection that has said hello. */
export function openData(
  edge: EdgeProcess,
  identity: KeyAndCertificate,
  attachmentId: string,
): { end: FramedEnd; socket: TLSSocket } {
  const socket = dial(edge, { serverName: edge.domain, alpn: 'postern-data/1', identity })
  socket.on('error', () => {})
  const end = new FramedEnd(socket)
  end.send('hello', { version: 1, attachmentId })
  return { end, socket }
}

export const ATTACH = {
  type: 'attach',
  version: 1,
  software: 'peer',
  features: [],
  requires: [],
  instanceId: 'the peer',
}

export class ConnectorPeer implements Disposable {
  readonly ws: WebSocket
  /** Close code. */
  readonly closed: Promise<number>
  attachmentId = ''
  readonly #edge: EdgeProcess
  readonly #identity: KeyAndCertificate
  readonly #messages: Record<string, unknown>[] = []
  readonly #sockets: TLSSocket[] = []
  #onMessage: () => void = () => {}

  /** @param first its first message, `attach` by default; texts and bytes are sent as they are */
  constructor(edge: EdgeProcess, identity: KeyAndCertificate, first: unknown = ATTACH) {
    this.#edge = edge
    this.#identity = identity
    // ws hands it on to node:tls, and its types do not know
    const serverName = { servername: `mtls.${edge.domain}` } as object
    this.ws = new WebSocket(`wss://127.0.0.1:${edge.port}/v1/connector`, ['postern-connector.v1'], {
      ...identity,
      ...serverName,
      headers: { host: `mtls.${edge.domain}:${edge.port}` },
      ca: readFileSync(edge.caFile),
      perMessageDeflate: false,
    })
    this.ws.on('error', () => {}) // 'close' tells
    this.closed = new Promise((resolve) => this.ws.on('close', resolve))
    this.ws.on('open', () => this.say(first))
    this.ws.on('message', (data) => {
      this.#messages.push(JSON.parse(String(data)))
      this.#onMessage()
    })
  }

  say(message: unknown): void {
    const isRaw = typeof message === 'string' || Buffer.isBuffer(message)
    this.ws.send(isRaw ? message : JSON.stringify(message))
  }

  /** Waits for a message of this type, also one that has come. */
  next(type: string): Promise<Record<string, unknown>> {
    const arrived = new Promise<Record<string, unknown>>((resolve) => {
      const look = () => {
        const index = this.#messages.findIndex((message) => message.type === type)
        if (index >= 0) resolve(this.#messages.splice(index, 1)[0]!)
      }
      this.#onMessage = look
      look()
    })
    return within(`the edge says ${type}`, arrived)
  }

  async attached(): Promise<this> {
    this.attachmentId = String((await this.next('attached')).attachmentId)
    return this
  }

  /** The code with which the edge does not let it stay. */
  async refusal(): Promise<unknown> {
    return (await this.next('refused')).code
  }

  /** Whether the edge still answers it. */
  async isHeard(): Promise<boolean> {
    const answered = new Promise<boolean>((resolve) => {
      this.ws.once('pong', () => resolve(true))
      this.ws.once('close', () => resolve(false))
    })
    this.ws.ping()
    return within('the edge answers a ping', answered)
  }

  /** Opens data connections for as long as it lives, and treats the flows of them as it is told. */
  serve(treat: (end: FramedEnd, socket: TLSSocket) => void): void {
    const open = () => {
      const { end, socket } = openData(this.#edge, this.#identity, this.attachmentId)
      this.#sockets.push(socket)
      end.receive({
        chunk: () => {},
        end: () => {},
        drain: () => {},
        cut: () => {},
        control: (type) => {
          if (type !== 'open') return
          open()
          treat(end, socket)
        },
      })
      end.resume()
    }
    const onWant = ({ type, count }: { type?: unknown; count?: unknown }) => {
      if (type === 'want') for (let number = 0; number < Number(count); number++) open()
    }
    this.ws.on('message', (data) => onWant(JSON.parse(String(data))))
    open()
  }

  [Symbol.dispose](): void {
    this.ws.terminate()
    for (const socket of this.#sockets) socket.destroy()
  }
}
