import {
  createHash,
  generateKeyPairSync,
  type JsonWebKey,
  type KeyObject,
  randomBytes,
  randomUUID,
  sign,
} from 'node:crypto'
import { readFileSync } from 'node:fs'
import https from 'node:https'
import type { EdgeProcess } from './edge-process.ts'
import { signInUpToCallback } from './login-page.ts'

/** An OAuth client that is not ours and does as it is told: right requests, and wrong ones. */

export interface Answer {
  status: number
  headers: Record<string, string | string[] | undefined>
  text: string
  // biome-ignore lint/suspicious/noExplicitAny: whatever the edge said
  json: any
}

export interface PeerRequest {
  method?: string
  path: string
  headers?: Record<string, string>
  /** An object is sent as JSON, parameters as a form. */
  body?: object | URLSearchParams
  /** The name the connection is opened for. */
  serverName?: string
  /** Any address of 127.0.0.0/8: where it comes from. */
  localAddress?: string
}

/** One request to the edge, on a connection of its own. */
export function requestEdge(edge: EdgeProcess, wanted: PeerRequest): Promise<Answer> {
  const { body } = wanted
  const isForm = body instanceof URLSearchParams
  const text = body === undefined ? undefined : isForm ? body.toString() : JSON.stringify(body)
  const type = isForm ? 'application/x-www-form-urlencoded' : 'application/json'
  return new Promise((resolve, reject) => {
    const request = https.request(
      {
        host: '127.0.0.1',
        port: edge.port,
        servername: wanted.serverName ?? edge.domain,
        ca: readFileSync(edge.caFile),
        agent: false,
        ...(wanted.localAddress === undefined ? {} : { localAddress: wanted.localAddress }),
        method: wanted.method ?? (text === undefined ? 'GET' : 'POST'),
        path: wanted.path,
        headers: {
          host: new URL(edge.origin).host,
          ...(text === undefined ? {} : { 'content-type': type, 'content-length': Buffer.byteLength(text) }),
          ...wanted.headers,
        },
      },
      (response) => {
        const chunks: Buffer[] = []
        response.on('data', (chunk: Buffer) => chunks.push(chunk))
        response.on('end', () => {
          const answer = Buffer.concat(chunks).toString('utf8')
          const { statusCode: status = 0, headers } = response
          resolve({ status, headers, text: answer, json: parseJson(answer) })
        })
      },
    )
    request.on('error', reject)
    request.end(text)
  })
}

export interface PeerKey {
  privateKey: KeyObject
  jwk: JsonWebKey
  thumbprint: string
}

export function makePeerKey(): PeerKey {
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  return peerKeyOf(privateKey, publicKey)
}

export function peerKeyOf(privateKey: KeyObject, publicKey: KeyObject): PeerKey {
  const { kty, crv, x, y } = publicKey.export({ format: 'jwk' })
  const jwk = { crv, kty, x, y } as JsonWebKey
  const thumbprint = createHash('sha256').update(JSON.stringify(jwk)).digest('base64url')
  return { privateKey, jwk, thumbprint }
}

/** RFC 7515, ES256. */
export function signJws(key: PeerKey, header: object, payload: object): string {
  const encode = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url')
  const input = `${encode({ alg: 'ES256', jwk: key.jwk, ...header })}.${encode(payload)}`
  const signature = sign('sha256', Buffer.from(input), { key: key.privateKey, dsaEncoding: 'ieee-p1363' })
  return `${input}.${signature.toString('base64url')}`
}

/** A nonce as every answer of the API brings one. */
export async function freshNonce(edge: EdgeProcess): Promise<string> {
  return String((await requestEdge(edge, { path: '/v1/edge' })).headers['dpop-nonce'])
}

/** A DPoP proof (RFC 9449), right but for what `claims` says. */
export async function makeProof(
  edge: EdgeProcess,
  key: PeerKey,
  target: { method: string; path: string; token?: string },
  claims: Record<string, unknown> = {},
): Promise<string> {
  const payload = {
    jti: randomUUID(),
    htm: target.method,
    htu: edge.origin + target.path,
    iat: Math.floor(Date.now() / 1_000),
    nonce: await freshNonce(edge),
    ...(target.token === undefined ? {} : { ath: hashOf(target.token) }),
    ...claims,
  }
  return signJws(key, { typ: 'dpop+jwt' }, payload)
}

/** A request to the API as the holder of `token` makes it. */
export async function callApi(
  edge: EdgeProcess,
  key: PeerKey,
  token: string,
  path: string,
  body?: object,
): Promise<Answer> {
  const method = body ? 'POST' : 'GET'
  const dpop = await makeProof(edge, key, { method, path, token })
  const headers = { authorization: `DPoP ${token}`, dpop }
  return requestEdge(edge, { method, path, headers, ...(body ? { body } : {}) })
}

export async function requestTokens(
  edge: EdgeProcess,
  key: PeerKey,
  parameters: Record<string, string>,
): Promise<Answer> {
  const path = '/oauth/token'
  const dpop = await makeProof(edge, key, { method: 'POST', path })
  const body = new URLSearchParams({ client_id: 'postern-cli', ...parameters })
  return requestEdge(edge, { path, headers: { dpop }, body })
}

const REDIRECT_URI = 'http://127.0.0.1:9/callback'

/** The address of a sign-in page. */
export function authorizationUrl(edge: EdgeProcess, more: Record<string, string>): string {
  const url = new URL('/oauth/auth', edge.origin)
  const parameters = {
    client_id: 'postern-cli',
    response_type: 'code',
    redirect_uri: REDIRECT_URI,
    scope: 'openid email offline_access',
    prompt: 'consent',
    state: randomUUID(),
    code_challenge_method: 'S256',
    ...more,
  }
  for (const [name, value] of Object.entries(parameters)) url.searchParams.set(name, value)
  return url.href
}

/** Parameters of the token request for a code that nobody has used. */
export async function obtainCode(edge: EdgeProcess, key: PeerKey, email: string) {
  const verifier = randomBytes(32).toString('base64url')
  const url = authorizationUrl(edge, { code_challenge: hashOf(verifier), dpop_jkt: key.thumbprint })
  const code = (await signInUpToCallback(url, edge, email)).searchParams.get('code')!
  return { grant_type: 'authorization_code', code, code_verifier: verifier, redirect_uri: REDIRECT_URI }
}

export interface PeerSession {
  key: PeerKey
  accessToken: string
  refreshToken: string
  idToken: string
}

export async function signInByHand(edge: EdgeProcess, email: string): Promise<PeerSession> {
  const key = makePeerKey()
  const { status, json } = await requestTokens(edge, key, await obtainCode(edge, key, email))
  if (status !== 200) throw new Error(JSON.stringify(json))
  return {
    key,
    accessToken: json.access_token,
    refreshToken: json.refresh_token,
    idToken: json.id_token,
  }
}

export function hashOf(text: string): string {
  return createHash('sha256').update(text).digest('base64url')
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}
