import { execFileSync } from 'node:child_process'
import { generateKeyPairSync } from 'node:crypto'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import http, { type IncomingMessage } from 'node:http'
import https from 'node:https'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { ERRORS, isErrorCode, PosternError, toPublicError } from '@postern/shared/errors'
import type { Logger } from '@postern/shared/logger'
import { lookupHost } from '@postern/shared/lookup-host'
import Provider from 'oidc-provider'
import * as oidc from 'openid-client'
import type { RequestRefused } from '../src/audit/event.ts'
import type { UpstreamIdentity } from '../src/config/config.ts'
import { Strangers } from '../src/limits/strangers.ts'
import { createLogin, type Login, type LoginParts } from '../src/login/login.ts'
import type { RecordLogin } from '../src/login/sessions.ts'
import { openStore, type Store } from '../src/store/open.ts'

/** For tests: an edge that only logs people in, over real TLS; a real provider in its own server; a browser that
 *  keeps cookies as browsers do; and a command line made of openid-client. */

export type LoginEvent = Parameters<RecordLogin>[0]

export const EDGE_HOST = 'edge.localhost'

export interface Stage extends AsyncDisposable {
  origin: string
  /** The edge's certificate, which is its own CA. PEM. */
  ca: Buffer
  login: Login
  store: Store
  dataDir: string
  upstream: UpstreamStage
  events: LoginEvent[]
  /** Refusals that have no event of their own. */
  refusals: RequestRefused[]
  logLines: string[]
  /** Milliseconds added to the edge's clock. */
  clock: { aheadMs: number }
  /** Requests that got past the edge's check, and whose they were. */
  request(options: RequestOptions): Promise<Answer>
}

export interface RequestOptions {
  path: string
  method?: string
  headers?: Record<string, string>
  body?: string
  servername?: string
}

export interface Answer {
  status: number
  headers: http.IncomingHttpHeaders
  body: string
}

export interface StageOptions {
  dev?: boolean
  /** Whether programs may ask for a code. */
  device?: boolean
  identity?: Partial<UpstreamIdentity>
  sessionMs?: number
  pendingLimits?: LoginParts['pendingLimits']
  codeLimits?: LoginParts['codeLimits']
  failedLoginsPerMinute?: number
  record?: (event: LoginEvent) => void
  /** The provider is not started. */
  upstreamDown?: boolean
}

export async function startStage(options: StageOptions = {}): Promise<Stage> {
  const dataDir = mkdtempSync(join(tmpdir(), 'postern-login-'))
  const clock = { aheadMs: 0 }
  const now = () => Date.now() + clock.aheadMs
  const store = await openStore(join(dataDir, 'edge.db'), now)
  const upstream = await startUpstream()
  if (options.upstreamDown) await upstream.stop()
  const events: LoginEvent[] = []
  const refusals: RequestRefused[] = []
  const logLines: string[] = []
  let origin = ''
  const login = await createLogin({
    config: {
      dataDir,
      login: { device: options.device ?? false },
      identity: options.dev ? { kind: 'dev' } : upstreamIdentity(upstream, options.identity),
      certificates: {
        ttlMs: 300_000,
        backdateMs: 300_000,
        sessionMs: options.sessionMs ?? 12 * 3_600_000,
        connectorTtlMs: 86_400_000,
        enrollTokenMaxTtlMs: 7 * 86_400_000,
        workloadMaxTtlMs: 90 * 86_400_000,
        workloadMaxLifetimeMs: 366 * 86_400_000,
      },
    },
    origin: () => origin,
    db: store.db,
    clock: now,
    log: collectLines(logLines),
    record: (event) => {
      options.record?.(event)
      if (event.type === 'request.refused') refusals.push(event)
      else events.push(event)
    },
    strangers: new Strangers({
      limits: {
        failedHandshakesPerMinute: 10_000,
        failedLoginsPerMinute: options.failedLoginsPerMinute ?? 10_000,
      },
      onLimited() {},
    }),
    ...(options.pendingLimits ? { pendingLimits: options.pendingLimits } : {}),
    ...(options.codeLimits ? { codeLimits: options.codeLimits } : {}),
  })
  const server = https.createServer(certificate(), (req, res) => {
    void serve(login, req, res)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  origin = `https://${EDGE_HOST}:${port}`
  upstream.callback = `${origin}/login/callback`

  return {
    origin,
    ca: certificate().cert,
    login,
    store,
    dataDir,
    upstream,
    events,
    refusals,
    logLines,
    clock,
    request: (request) => requestEdge(origin, request),
    async [Symbol.asyncDispose]() {
      server.closeAllConnections()
      server.close()
      await upstream.stop()
      await store.close()
      rmSync(dataDir, { recursive: true, force: true, maxRetries: 20, retryDelay: 100 })
    },
  }
}

async function serve(login: Login, req: IncomingMessage, res: http.ServerResponse): Promise<void> {
  if (await login.handle(req, res)) return
  try {
    const path = req.url?.split('?', 1)[0]
    if (path !== '/v1/session') throw new PosternError('NOT_FOUND', 'there is nothing here')
    const { identity, session } = await login.verify(req)
    res.writeHead(200, { 'Content-Type': 'application/json', ...login.headersFor() })
    res.end(JSON.stringify({ identity, session }))
  } catch (error) {
    const failure = toPublicError(error, 'test')
    res.writeHead(ERRORS[failure.code].http, {
      'Content-Type': 'application/json',
      ...login.headersFor(error),
    })
    res.end(JSON.stringify({ error: failure }))
  }
}

function upstreamIdentity(
  upstream: UpstreamStage,
  identity: Partial<UpstreamIdentity> = {},
): UpstreamIdentity {
  return {
    kind: 'upstream',
    issuer: new URL(upstream.issuer),
    clientId: 'edge',
    clientSecret: 'upstream-secret',
    scopes: ['openid', 'email', 'groups'],
    groupsClaim: 'groups',
    emailDomains: [],
    requiredClaims: {},
    unsafeAcceptUnverifiedEmail: false,
    ...identity,
  }
}

/** A provider with single sign-on: whoever is `signedInAs` gets through without a page. */
export interface UpstreamStage {
  issuer: string
  callback: string
  signedInAs: string
  claims: Record<string, unknown>
  /** How the person signs in there. */
  signIn: { amr?: string[]; acr?: string; ts?: number }
  /** Claims come from userinfo only. */
  onlyUserInfo: boolean
  /** Authorization requests seen. */
  requests: URLSearchParams[]
  /** Codes exchanged. */
  exchanges: number
  stop(): Promise<void>
}

async function startUpstream(): Promise<UpstreamStage> {
  const server = http.createServer()
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const issuer = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  const stage: UpstreamStage = {
    issuer,
    callback: '',
    signedInAs: 'dev',
    claims: { email: 'dev@mycorp.com', email_verified: true, groups: ['sre', 'dev'] },
    signIn: {},
    onlyUserInfo: false,
    requests: [],
    exchanges: 0,
    async stop() {
      server.closeAllConnections()
      server.close()
    },
  }
  let provider: Provider | undefined
  server.on('request', async (req, res) => {
    provider ??= upstreamProvider(issuer, stage)
    const url = new URL(req.url ?? '', issuer)
    if (url.pathname === '/auth') stage.requests.push(url.searchParams)
    if (url.pathname === '/token') stage.exchanges += 1
    if (!url.pathname.startsWith('/interaction/')) return await provider.callback()(req, res)
    await provider.interactionFinished(req, res, { login: { accountId: stage.signedInAs, ...stage.signIn } })
  })
  return stage
}

function upstreamProvider(issuer: string, stage: UpstreamStage): Provider {
  const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 })
  const jwk = { ...privateKey.export({ format: 'jwk' }), use: 'sig', alg: 'RS256', kid: 'r1' }
  return new Provider(issuer, {
    clients: [{ client_id: 'edge', client_secret: 'upstream-secret', redirect_uris: [stage.callback] }],
    jwks: { keys: [jwk as never] },
    cookies: { keys: ['upstream'] },
    conformIdTokenClaims: stage.onlyUserInfo,
    scopes: ['openid', 'email', 'groups'],
    claims: {
      openid: ['sub', 'amr', 'acr', 'auth_time'],
      email: ['email', 'email_verified'],
      groups: ['groups', 'hd'],
    },
    features: { devInteractions: { enabled: false } },
    interactions: { url: (_ctx, interaction) => `/interaction/${interaction.uid}` },
    findAccount: async (_ctx, id) => ({
      accountId: id,
      claims: () => ({ sub: id, ...(stage.claims as Record<string, never>) }),
    }),
    loadExistingGrant: async (ctx) => {
      const grant = new ctx.oidc.provider.Grant({
        clientId: ctx.oidc.client!.clientId,
        accountId: ctx.oidc.session!.accountId!,
      })
      grant.addOIDCScope('openid email groups')
      await grant.save()
      return grant
    },
    ttl: { AccessToken: 60, AuthorizationCode: 60, IdToken: 60, Grant: 60, Session: 600, Interaction: 60 },
  })
}

/** Cookies as browsers keep them: by host and path, `__Host-` only when it is what it claims to be. */
export class Browser {
  readonly #jar = new Map<string, { name: string; value: string; path: string; host: string }>()
  /** Every Set-Cookie line seen, with the host that sent it. */
  readonly setCookies: { host: string; line: string }[] = []
  readonly visited: URL[] = []

  cookies(host: string): { name: string; value: string }[] {
    return [...this.#jar.values()].filter((cookie) => cookie.host === host)
  }

  takeCookiesOf(other: Browser): void {
    for (const [key, cookie] of other.#jar) this.#jar.set(key, cookie)
  }

  setCookie(host: string, name: string, value: string): void {
    this.#jar.set(`${host} ${name} /`, { name, value, path: '/', host })
  }

  /** Follows redirects until one leads to a matching address, which is not opened. */
  async openUntil(url: string | URL, matches: (url: URL) => boolean): Promise<URL> {
    let target = new URL(url)
    for (let hops = 0; hops < 20 && !matches(target); hops += 1) {
      this.visited.push(target)
      const headers = { accept: 'text/html', cookie: this.#cookieHeader(target) }
      const answer = await send(target, { path: `${target.pathname}${target.search}`, headers })
      this.#keep(target, answer.headers['set-cookie'] ?? [])
      if (answer.headers.location === undefined)
        throw new Error(`no redirect at ${target.pathname}: ${answer.body}`)
      target = new URL(answer.headers.location, target)
    }
    return target
  }

  async open(url: string | URL, options: Partial<RequestOptions> = {}): Promise<Page> {
    let target = new URL(url)
    let request: Partial<RequestOptions> = options
    for (let hops = 0; hops < 20; hops += 1) {
      this.visited.push(target)
      if (isLoopbackCallback(target)) return { url: target, status: 0, headers: {}, body: '' }
      const answer = await send(target, {
        ...request,
        path: `${target.pathname}${target.search}`,
        headers: { accept: 'text/html', cookie: this.#cookieHeader(target), ...request.headers },
      })
      this.#keep(target, answer.headers['set-cookie'] ?? [])
      if (answer.status < 300 || answer.status >= 400) return { url: target, ...answer }
      target = new URL(answer.headers.location!, target)
      request = {}
    }
    throw new Error('too many redirects')
  }

  /** Posts the page's form as a browser would: with its Origin. */
  async submit(page: Page, fields: Record<string, string> = {}, headers?: Record<string, string>) {
    const action = formActionOf(page)
    const body = new URLSearchParams(fields).toString()
    return await this.open(new URL(action, page.url), {
      method: 'POST',
      body,
      headers: { 'content-type': 'application/x-www-form-urlencoded', ...(headers ?? originOf(page)) },
    })
  }

  #cookieHeader(url: URL): string {
    return [...this.#jar.values()]
      .filter((cookie) => cookie.host === url.hostname && url.pathname.startsWith(cookie.path))
      .map((cookie) => `${cookie.name}=${cookie.value}`)
      .join('; ')
  }

  #keep(url: URL, lines: string[]): void {
    for (const line of lines) {
      this.setCookies.push({ host: url.hostname, line })
      const [pair = '', ...attributes] = line.split(';').map((part) => part.trim())
      const name = pair.slice(0, pair.indexOf('='))
      const value = pair.slice(pair.indexOf('=') + 1)
      const path = attributes.find((attribute) => /^path=/i.test(attribute))?.slice(5) ?? '/'
      const key = `${url.hostname} ${name} ${path}`
      const isGone = attributes.some((attribute) => /^max-age=0$|^expires=Thu, 01 Jan 1970/i.test(attribute))
      if (isGone) this.#jar.delete(key)
      else this.#jar.set(key, { name, value, path, host: url.hostname })
    }
  }
}

export interface Page extends Answer {
  url: URL
}

export function formActionOf(page: Page): string {
  const action = /<form[^>]*action="([^"]+)"/.exec(page.body)?.[1]
  if (action === undefined) throw new Error(`no form on ${page.url.pathname} (${page.status}):\n${page.body}`)
  return action.replaceAll('&amp;', '&')
}

function originOf(page: Page): Record<string, string> {
  return { origin: page.url.origin }
}

export function isLoopbackCallback(url: URL): boolean {
  return url.hostname === '127.0.0.1' && url.pathname === '/callback'
}

/** What `postern login` does, without the waiting. */
export interface Cli {
  config: oidc.Configuration
  keyPair: Awaited<ReturnType<typeof oidc.randomDPoPKeyPair>>
  DPoP: oidc.DPoPHandle
  /** A new login: the address to open and how to finish with the address the browser came back to. */
  begin(parameters?: Record<string, string>): Promise<{
    url: URL
    finish(callback: URL): Promise<Awaited<ReturnType<typeof oidc.authorizationCodeGrant>>>
  }>
  whoami(accessToken: string, DPoP?: oidc.DPoPHandle): Promise<{ status: number; body: WhoAmI }>
}

export interface WhoAmI {
  identity?: { id: string; issuer: string; subject: string; email: string; groups: string[] }
  session?: {
    id: string
    expiresAt: number
    kind: string
    amr: string[]
    acr?: string
    authTime?: number
  }
  error?: { code: string; message: string; hint: string }
}

export async function createCli(stage: Stage): Promise<Cli> {
  const config = await oidc.discovery(
    new URL(stage.origin),
    'postern-cli',
    { id_token_signed_response_alg: 'ES256' },
    oidc.None(),
    { [oidc.customFetch]: fetchEdge },
  )
  oidc.enableNonRepudiationChecks(config)
  const keyPair = await oidc.randomDPoPKeyPair('ES256')
  const DPoP = oidc.getDPoPHandle(config, keyPair)
  return {
    config,
    keyPair,
    DPoP,
    async begin(parameters = {}) {
      const codeVerifier = oidc.randomPKCECodeVerifier()
      const state = oidc.randomState()
      const url = oidc.buildAuthorizationUrl(config, {
        redirect_uri: 'http://127.0.0.1:54321/callback',
        scope: 'openid email offline_access',
        prompt: 'consent',
        state,
        code_challenge: await oidc.calculatePKCECodeChallenge(codeVerifier),
        code_challenge_method: 'S256',
        dpop_jkt: await DPoP.calculateThumbprint(),
        ...parameters,
      })
      const checks = { pkceCodeVerifier: codeVerifier, expectedState: state }
      return {
        url,
        finish: (callback) => oidc.authorizationCodeGrant(config, callback, checks, undefined, { DPoP }),
      }
    },
    async whoami(accessToken, handle = DPoP) {
      const url = new URL('/v1/session', stage.origin)
      const answer = await askApi(config, accessToken, url, handle)
      return { status: answer.status, body: JSON.parse(await answer.text()) }
    },
  }
}

async function askApi(config: oidc.Configuration, token: string, url: URL, DPoP: oidc.DPoPHandle) {
  try {
    return await oidc.fetchProtectedResource(config, token, url, 'GET', null, undefined, { DPoP })
  } catch (error) {
    if (error instanceof oidc.WWWAuthenticateChallengeError) return error.response
    throw error
  }
}

/** One whole login: browser, provider, confirmation, tokens. */
export async function logIn(stage: Stage, parts: { cli?: Cli; browser?: Browser } = {}) {
  const cli = parts.cli ?? (await createCli(stage))
  const browser = parts.browser ?? new Browser()
  const attempt = await cli.begin()
  const confirm = await browser.open(attempt.url)
  const callback = await browser.submit(confirm)
  const tokens = await attempt.finish(callback.url)
  return { cli, browser, confirm, callback: callback.url, tokens }
}

/** Error code shown on a page of the login. */
export function codeOn(page: Page): string | undefined {
  const code = /<p class="code">([A-Z_]+)<\/p>/.exec(page.body)?.[1]
  return isErrorCode(code) ? code : undefined
}

function requestEdge(origin: string, options: RequestOptions): Promise<Answer> {
  return send(new URL(origin), options)
}

async function send(url: URL, options: RequestOptions): Promise<Answer> {
  const secure = url.protocol === 'https:'
  const request = (secure ? https : http).request({
    host: url.hostname,
    port: url.port,
    path: options.path,
    method: options.method ?? 'GET',
    headers: { ...options.headers, ...lengthOf(options.body) },
    lookup: lookupHost,
    agent: false,
    ...(secure ? { ca: certificate().cert, servername: options.servername ?? url.hostname } : {}),
  })
  request.end(options.body)
  const [response] = (await once(request, 'response')) as [IncomingMessage]
  const chunks: Buffer[] = []
  for await (const chunk of response) chunks.push(chunk)
  return { status: response.statusCode!, headers: response.headers, body: Buffer.concat(chunks).toString() }
}

function lengthOf(body: string | undefined): Record<string, string> {
  return body === undefined ? {} : { 'content-length': String(Buffer.byteLength(body)) }
}

/** openid-client over our own CA and `*.localhost`. */
const fetchEdge: oidc.CustomFetch = async (target, options) => {
  const url = new URL(target)
  const body = options.body === null || options.body === undefined ? undefined : String(options.body)
  const answer = await send(url, {
    path: `${url.pathname}${url.search}`,
    method: options.method,
    headers: Object.fromEntries(new Headers(options.headers)),
    ...(body === undefined ? {} : { body }),
  })
  const headers = new Headers()
  for (const [name, value] of Object.entries(answer.headers)) headers.set(name, String(value))
  return new Response(answer.status === 204 ? null : answer.body, { status: answer.status, headers })
}

let certificateMade: { key: Buffer; cert: Buffer } | undefined

/** Self-signed for the edge's name, made once; verification stays on. */
function certificate(): { key: Buffer; cert: Buffer } {
  if (certificateMade) return certificateMade
  const dir = mkdtempSync(join(tmpdir(), 'postern-cert-'))
  const [key, cert] = [join(dir, 'key.pem'), join(dir, 'cert.pem')]
  const subject = [
    '-subj',
    `/CN=${EDGE_HOST}`,
    '-addext',
    `subjectAltName=DNS:${EDGE_HOST},DNS:other.localhost`,
  ]
  const curve = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2']
  execFileSync('openssl', ['req', '-x509', ...curve, ...subject, '-keyout', key, '-out', cert], {
    stdio: 'ignore',
  })
  certificateMade = { key: readFileSync(key), cert: readFileSync(cert) }
  rmSync(dir, { recursive: true, force: true, maxRetries: 20, retryDelay: 100 })
  return certificateMade
}

function collectLines(lines: string[]): Logger {
  const at = (level: string) => (event: string, fields?: Record<string, unknown>) => {
    lines.push(JSON.stringify({ level, event, ...fields }))
  }
  return { debug: at('debug'), info: at('info'), warn: at('warn'), error: at('error') }
}
