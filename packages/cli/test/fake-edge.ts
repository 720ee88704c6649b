import { createHash, generateKeyPairSync, type JsonWebKey, randomUUID } from 'node:crypto'
import http, { type IncomingMessage, type ServerResponse } from 'node:http'
import net, { type AddressInfo, type Socket } from 'node:net'
import tls, { type TLSSocket } from 'node:tls'
import { CONTROL_SUBPROTOCOL } from '@postern/shared/protocol/connector-control'
import { FramedEnd } from '@postern/shared/stream/framed-end'
import { type WebSocket, WebSocketServer } from 'ws'
import { signCompactJws } from '../src/api/dpop.ts'
import { createCa, createServerKey, issueLeaf, spkiOfCsr, type TestCa } from './certificates.ts'
import { SshCa } from './ssh-ca.ts'

/** A stand-in for the edge, on one port like the real one and with real TLS, that tests steer: it signs in
 *  whoever comes, issues certificates, and hands every connection to the test. */

export interface ApiCall {
  method: string
  path: string
  headers: IncomingMessage['headers']
  body: Record<string, unknown>
}

/** Undefined: the usual answer. */
type ApiOverride = (
  call: ApiCall,
) => { status: number; body: unknown; headers?: Record<string, string> } | undefined

export class FakeEdge {
  readonly domain: string = 'edge.localhost'
  readonly ca: TestCa = createCa('test edge CA')
  readonly clientCa: TestCa = createCa('test client CA')
  readonly connectorCa: TestCa = createCa('test connector CA')
  readonly ssh: SshCa = new SshCa()
  readonly calls: ApiCall[] = []
  /** Replaces the usual answers of the API. */
  override: ApiOverride | undefined
  /** Called with each flow of a client. */
  onFlow: (socket: TLSSocket) => void = (socket) => socket.destroy()
  /** Called with each data connection of a connector. */
  onData: (end: FramedEnd, socket: TLSSocket) => void = () => undefined
  onControl: (ws: WebSocket) => void = () => undefined
  /** How the login page answers; the default signs in `dev@mycorp.com`. */
  denyLogin: string | undefined
  /** The login page waits for this. */
  holdLogin: Promise<void> | undefined
  /** The issuer's metadata, to lie in. */
  metadata: Record<string, unknown> = {}
  nonce = 'nonce-1'
  /** Added to the edge's clock. */
  clockMs = 0
  connectorTtlMs = 3_600_000
  port = 0
  readonly #issuerKey: JsonWebKey = generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey.export({
    format: 'jwk',
  })
  readonly #codes = new Map<string, { nonce: string; jkt: string; challenge: string; redirectUri: string }>()
  readonly #sockets = new Set<Socket>()
  #server: net.Server | undefined

  get origin(): string {
    return `https://${this.domain}:${this.port}`
  }

  callsTo(path: string): ApiCall[] {
    return this.calls.filter((call) => call.path === path)
  }

  async start(): Promise<this> {
    const web = http.createServer((request, response) => void this.#serveHttp(request, response))
    const control = new WebSocketServer({ noServer: true, handleProtocols: () => CONTROL_SUBPROTOCOL })
    const mtlsWeb = http.createServer().on('upgrade', (request, socket, head) => {
      control.handleUpgrade(request, socket, head, (ws) => this.onControl(ws))
    })
    const { keyPem, spki } = createServerKey()
    const dnsNames = [this.domain, `*.${this.domain}`]
    const own = { key: keyPem, cert: issueLeaf(this.ca, { spki, dnsNames, usage: 'serverAuth' }).pem }
    const asking = { ...own, requestCert: true, minVersion: 'TLSv1.3' } as const
    const rooms = {
      web: tls.createServer({ ...own, ALPNProtocols: ['http/1.1'] }, (socket) =>
        web.emit('connection', socket),
      ),
      mtls: tls.createServer({ ...asking, ca: this.connectorCa.certificatePem }, (socket) =>
        mtlsWeb.emit('connection', socket),
      ),
      flow: tls.createServer(
        { ...asking, ca: this.clientCa.certificatePem, ALPNProtocols: ['postern/1'] },
        (socket) => this.onFlow(socket),
      ),
      data: tls.createServer(
        { ...asking, ca: this.connectorCa.certificatePem, ALPNProtocols: ['postern-data/1'] },
        (socket) => this.onData(new FramedEnd(socket), socket),
      ),
    }
    for (const room of Object.values(rooms)) room.on('tlsClientError', () => undefined)
    this.#server = net.createServer({ allowHalfOpen: true }, (socket) => {
      this.#sockets.add(socket)
      socket.on('error', () => undefined)
      socket.once('close', () => this.#sockets.delete(socket))
      socket.once('data', (hello) => {
        socket.pause()
        socket.unshift(hello)
        rooms[chooseRoom(hello, this.domain)].emit('connection', socket)
      })
    })
    await new Promise<void>((resolve) =>
      this.#server!.listen({ host: '127.0.0.1', port: this.port }, resolve),
    )
    this.port = (this.#server.address() as AddressInfo).port
    return this
  }

  /** Everybody is cut off, as when the process is killed. */
  async [Symbol.asyncDispose](): Promise<void> {
    for (const socket of this.#sockets) socket.destroy()
    this.ssh[Symbol.dispose]()
    await new Promise((resolve) => this.#server?.close(resolve))
  }

  issueClient(label: string, csr: string) {
    const uris = [`postern://${this.domain}/service/service-${label}`]
    return issueLeaf(this.clientCa, { spki: spkiOfCsr(csr), uris, usage: 'clientAuth' })
  }

  async #serveHttp(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = new URL(request.url ?? '/', this.origin)
    let text = ''
    for await (const chunk of request) text += chunk
    response.setHeader('date', new Date(Date.now() + this.clockMs).toUTCString())
    response.setHeader('dpop-nonce', this.nonce)
    if (url.pathname === '/oauth/auth') await this.holdLogin
    if (url.pathname.startsWith('/v1/')) return this.#serveApi(request, url, text, response)
    this.#serveIssuer(url, new URLSearchParams(text), request, response)
  }

  #serveApi(request: IncomingMessage, url: URL, text: string, response: ServerResponse): void {
    const { method = '', headers } = request
    const call = { method, path: url.pathname, headers, body: text === '' ? {} : JSON.parse(text) }
    this.calls.push(call)
    if (headers.dpop && readJws(String(headers.dpop)).nonce !== this.nonce) {
      response.setHeader('www-authenticate', 'DPoP error="use_dpop_nonce"')
      return sendJson(response, 401, { error: { code: 'DPOP_INVALID', message: 'nonce', hint: '' } })
    }
    const answer = this.override?.(call) ?? { status: 200, body: this.#usualAnswer(call), headers: {} }
    for (const [name, value] of Object.entries(answer.headers ?? {})) response.setHeader(name, value)
    sendJson(response, answer.status, answer.body)
  }

  #usualAnswer({ method, path, body }: ApiCall): unknown {
    const now = Date.now() + this.clockMs
    const connector = () => {
      const csr = String(body.csr ?? readJws(String(body.jws)).csr)
      const { pem, serial } = issueLeaf(this.connectorCa, { spki: spkiOfCsr(csr), usage: 'clientAuth' })
      return {
        certificate: pem,
        serial,
        notBefore: now,
        notAfter: now + this.connectorTtlMs,
        connectorId: 'c1',
      }
    }
    switch (`${method} ${path}`) {
      case 'GET /v1/edge':
        return { domain: this.domain, issuer: this.origin, clientId: 'postern-cli', version: '0', now }
      case 'GET /v1/session':
        return {
          identity: { issuer: 'i', subject: 's', email: 'dev@mycorp.com', groups: [] },
          session: { id: 'session', createdAt: now, expiresAt: now + 3_600_000 },
          roles: ['operator'],
        }
      case 'POST /v1/certificates/client': {
        const label = String(body.host).split('.')[0]!
        const { pem, serial, notBefore, notAfter } = this.issueClient(label, String(body.csr))
        return { certificate: pem, serial, notBefore, notAfter, serviceId: `service-${label}` }
      }
      case 'POST /v1/certificates/ssh':
        return this.ssh.certify(String(body.publicKey), String(body.host), now)
      case `GET ${path.match(/^\/v1\/services\/[^/]+\/ssh-host-keys$/)?.[0]}`:
        return this.ssh.describeHostKeys(path.split('/')[3]!, now)
      case 'POST /v1/services':
        return { service: { ...exampleService(this.domain), name: body.name }, created: true }
      case 'GET /v1/services':
        return { services: [exampleService(this.domain)] }
      case 'POST /v1/connectors':
      case 'POST /v1/connectors/renew':
        return connector()
      default:
        return {}
    }
  }

  #serveIssuer(url: URL, form: URLSearchParams, request: IncomingMessage, response: ServerResponse): void {
    switch (url.pathname) {
      case '/.well-known/openid-configuration':
        return sendJson(response, 200, {
          issuer: this.origin,
          authorization_endpoint: `${this.origin}/oauth/auth`,
          token_endpoint: `${this.origin}/oauth/token`,
          jwks_uri: `${this.origin}/oauth/jwks`,
          id_token_signing_alg_values_supported: ['ES256'],
          ...this.metadata,
        })
      case '/oauth/auth':
        return this.#redirectWithCode(url.searchParams, response)
      case '/oauth/token':
        return this.#serveToken(form, String(request.headers.dpop), response)
      default:
        response.writeHead(404).end()
    }
  }

  #redirectWithCode(query: URLSearchParams, response: ServerResponse): void {
    const back = new URL(query.get('redirect_uri')!)
    back.searchParams.set('state', query.get('state')!)
    if (this.denyLogin !== undefined) {
      back.searchParams.set('error', 'access_denied')
      back.searchParams.set('error_description', this.denyLogin)
    } else {
      const code = randomUUID()
      this.#codes.set(code, {
        nonce: query.get('nonce')!,
        jkt: query.get('dpop_jkt')!,
        challenge: query.get('code_challenge')!,
        redirectUri: query.get('redirect_uri')!,
      })
      back.searchParams.set('code', code)
    }
    response.writeHead(303, { location: back.href }).end()
  }

  #serveToken(form: URLSearchParams, proof: string, response: ServerResponse): void {
    const call = { method: 'POST', path: '/oauth/token', headers: {}, body: Object.fromEntries(form) }
    this.calls.push(call)
    const answer = this.override?.(call)
    if (answer) return sendJson(response, answer.status, answer.body)
    const tokens = {
      access_token: `access-${randomUUID()}`,
      token_type: 'DPoP',
      expires_in: 600,
      refresh_token: 'refresh-1',
    }
    if (form.get('grant_type') === 'refresh_token') return sendJson(response, 200, tokens)
    const code = this.#codes.get(form.get('code') ?? '')
    this.#codes.delete(form.get('code') ?? '')
    const challenge = createHash('sha256')
      .update(form.get('code_verifier') ?? '')
      .digest('base64url')
    const fits = code?.challenge === challenge && code.redirectUri === form.get('redirect_uri')
    if (!fits || code.jkt !== thumbprintOf(proof)) return sendJson(response, 400, { error: 'invalid_grant' })
    const seconds = Math.floor((Date.now() + this.clockMs) / 1_000)
    const idToken = signCompactJws(
      this.#issuerKey,
      { alg: 'ES256' },
      { iss: this.origin, aud: 'postern-cli', sub: 's', nonce: code.nonce, iat: seconds, exp: seconds + 60 },
    )
    sendJson(response, 200, { ...tokens, id_token: idToken })
  }
}

export function exampleService(domain: string) {
  return {
    id: 'service-crimson-thunder-8434',
    label: 'crimson-thunder-8434',
    host: `crimson-thunder-8434.${domain}`,
    name: 'text',
    type: 'tls',
    owner: 'dev@mycorp.com',
    allow: { emailDomains: ['mycorp.com'], emailAddresses: [], anyAuthenticated: false },
    revision: 1,
    createdAt: 0,
    connectors: 1,
    flows: 0,
  }
}

export function refusal(code: string, message: string, status = 403, details?: Record<string, unknown>) {
  return { status, body: { error: { code, message, hint: 'the edge knows what to do', details } } }
}

export function readJws(jws: string): Record<string, unknown> {
  return JSON.parse(Buffer.from(jws.split('.')[1]!, 'base64url').toString('utf8'))
}

function thumbprintOf(proof: string): string {
  const { jwk } = JSON.parse(Buffer.from(proof.split('.')[0]!, 'base64url').toString('utf8'))
  const canonical = JSON.stringify({ crv: jwk.crv, kty: jwk.kty, x: jwk.x, y: jwk.y })
  return createHash('sha256').update(canonical).digest('base64url')
}

function chooseRoom(hello: Buffer, domain: string): 'web' | 'mtls' | 'flow' | 'data' {
  if (hello.includes('postern-data/1')) return 'data'
  if (hello.includes('postern/1')) return 'flow'
  return hello.includes(`mtls.${domain}`) ? 'mtls' : 'web'
}

function sendJson(response: ServerResponse, status: number, body: unknown): void {
  response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body))
}
