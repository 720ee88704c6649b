import { generateKeyPairSync, type JsonWebKey, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import Provider from 'oidc-provider'
import type { UpstreamIdentity } from './edge-process.ts'

/** The company's identity provider: a real OpenID provider in the test's process, with its own login page (fields
 *  `login` and `password`, button "Sign in"), its own single sign-on session, and accounts a test may change. */

export interface UpstreamAccount {
  sub: string
  email?: string
  /** undefined leaves the claim out. */
  email_verified?: boolean
  groups?: string[]
  name?: string
  [claim: string]: unknown
}

export interface UpstreamProviderOptions {
  /** The edge's `https://edge.localhost:PORT`: its callback is the one redirect URI. */
  edgeOrigin: string
  /** Of more edges of the same company. */
  otherOrigins?: readonly string[]
  /** By what is typed into `login`. Any other login is refused. */
  accounts: Record<string, UpstreamAccount>
  /** false: email and groups come from the userinfo endpoint only. */
  claimsInIdToken?: boolean
}

export interface UpstreamProvider extends AsyncDisposable {
  issuer: string
  /** For `startEdge({ identity })`. */
  identity: UpstreamIdentity
  /** Change it at any time; the next login sees it. */
  accounts: Map<string, UpstreamAccount>
  /** Path and query of every authorization request. */
  authorizationRequests: URL[]
}

const CLIENT_ID = 'postern-edge'

export async function startUpstreamProvider(options: UpstreamProviderOptions): Promise<UpstreamProvider> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const issuer = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  const clientSecret = randomBytes(32).toString('base64url')
  const accounts = new Map(Object.entries(options.accounts))
  const provider = makeProvider(issuer, clientSecret, accounts, options)
  const authorizationRequests: URL[] = []
  const answerProvider = provider.callback()

  server.on('request', (request: IncomingMessage, response: ServerResponse) => {
    const url = new URL(request.url ?? '/', issuer)
    if (url.pathname === '/auth') authorizationRequests.push(url)
    if (!url.pathname.startsWith('/interaction/')) return void answerProvider(request, response)
    answerLoginPage(provider, accounts, request, response).catch((error: Error) => {
      response.writeHead(500).end(error.message)
    })
  })
  return {
    issuer,
    identity: { issuer, clientId: CLIENT_ID, clientSecret },
    accounts,
    authorizationRequests,
    async [Symbol.asyncDispose]() {
      server.close()
      server.closeAllConnections()
      await once(server, 'close')
    },
  }
}

function makeProvider(
  issuer: string,
  clientSecret: string,
  accounts: Map<string, UpstreamAccount>,
  { edgeOrigin, otherOrigins = [], claimsInIdToken = true }: UpstreamProviderOptions,
): Provider {
  const signingKey = generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey.export({ format: 'jwk' })
  const provider: Provider = new Provider(issuer, {
    clients: [
      {
        client_id: CLIENT_ID,
        client_secret: clientSecret,
        redirect_uris: [edgeOrigin, ...otherOrigins].map((origin) => `${origin}/login/callback`),
      },
    ],
    jwks: { keys: [{ ...(signingKey as JsonWebKey & { kty: 'RSA' }), use: 'sig', alg: 'RS256', kid: '1' }] },
    cookies: { keys: [randomBytes(16).toString('hex')], names: { session: '_company_session' } },
    scopes: ['openid', 'email', 'profile', 'groups'],
    claims: {
      openid: ['sub', 'hd'],
      email: ['email', 'email_verified'],
      profile: ['name'],
      groups: ['groups'],
    },
    conformIdTokenClaims: !claimsInIdToken,
    features: { devInteractions: { enabled: false } },
    pkce: { required: () => true },
    ttl: {
      Interaction: 600,
      Session: 3600,
      Grant: 3600,
      AuthorizationCode: 60,
      AccessToken: 600,
      IdToken: 600,
    },
    interactions: { url: (_context, interaction) => `/interaction/${interaction.uid}` },
    findAccount: (_context, sub) => {
      const account = [...accounts.values()].find((candidate) => candidate.sub === sub)
      return account && { accountId: sub, claims: () => ({ ...account }) }
    },
    // the company trusts its own edge: nobody is asked for consent
    async loadExistingGrant({ oidc }) {
      const grant = new provider.Grant({
        clientId: oidc.client!.clientId,
        accountId: oidc.session!.accountId!,
      })
      grant.addOIDCScope('openid email profile groups')
      await grant.save()
      return grant
    },
  })
  return provider
}

async function answerLoginPage(
  provider: Provider,
  accounts: Map<string, UpstreamAccount>,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  if (request.method !== 'POST') return sendPage(response, 200, LOGIN_PAGE)
  const login = new URLSearchParams(await readBody(request)).get('login') ?? ''
  const account = accounts.get(login)
  if (!account) return sendPage(response, 403, '<h1>No such account</h1>')
  await provider.interactionFinished(request, response, { login: { accountId: account.sub } })
}

async function readBody(request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = []
  for await (const chunk of request) chunks.push(chunk as Buffer)
  return Buffer.concat(chunks).toString('utf8')
}

function sendPage(response: ServerResponse, status: number, html: string): void {
  response.writeHead(status, { 'content-type': 'text/html; charset=utf-8', 'cache-control': 'no-store' })
  response.end(`<!doctype html><meta charset="utf-8"><title>Company sign-in</title>${html}`)
}

const LOGIN_PAGE = `<h1>Company sign-in</h1>
<form method="post">
  <label>Login <input name="login" autocomplete="username"></label>
  <label>Password <input name="password" type="password" autocomplete="current-password"></label>
  <button type="submit">Sign in</button>
</form>`
