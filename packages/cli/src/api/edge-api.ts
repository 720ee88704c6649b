import type { Agent } from 'node:https'
import { ExportAuditResponse, ListAuditResponse } from '@postern/shared/api/audit'
import {
  type ClientCertificateRequest,
  ClientCertificateResponse,
  type ConnectorCertificateRequest,
  ConnectorCertificateResponse,
} from '@postern/shared/api/certificates'
import {
  CancelEnrollTokensResponse,
  type EnrollConnectorRequest,
  EnrollConnectorResponse,
  type MakeEnrollTokenRequest,
  MakeEnrollTokenResponse,
} from '@postern/shared/api/enroll'
import { type RevocationRequest, RevocationResponse } from '@postern/shared/api/revocations'
import {
  type ClaimServiceRequest,
  ClaimServiceResponse,
  ListServicesResponse,
  ServiceResponse,
  type UpdateServiceRequest,
} from '@postern/shared/api/services'
import { EDGE_CAS_HEADER, EdgeResponse, ErrorResponse, SessionResponse } from '@postern/shared/api/session'
import {
  SshAuthoritiesResponse,
  type SshCertificateRequest,
  SshCertificateResponse,
  SshHostCertificatesResponse,
  SshHostKeysResponse,
} from '@postern/shared/api/ssh'
import { fromPublicError, PosternError } from '@postern/shared/errors'
import * as v from 'valibot'
import type { Session } from '../credentials/session.ts'
import { createProof } from './dpop.ts'
import { createAgent, type HttpsAnswer, requestHttps } from './https-request.ts'

/** The edge's API, one method per endpoint. Speaks for one session at a time and neither refreshes nor logs in:
 *  that is `credentials/fresh.ts`. */

/** What the client keeps between answers. */
export interface ApiMemory {
  clockOffsetMs: number
  dpopNonce?: string
}

interface EndpointRequest {
  method: 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE'
  path: string
  body?: object
  session?: Session
}

export class EdgeApi {
  readonly origin: string
  readonly agent: Agent
  readonly memory: ApiMemory
  /** The CAs that the last answer named, see EDGE_CAS_HEADER. */
  toldCas: string | undefined
  readonly #onMemory: ((memory: ApiMemory) => void) | undefined

  /** @param onMemory called after an answer that changed what is worth keeping */
  constructor(
    edge: { origin: string; caPem?: string | undefined },
    memory: ApiMemory = { clockOffsetMs: 0 },
    onMemory?: (memory: ApiMemory) => void,
  ) {
    this.origin = edge.origin
    this.agent = createAgent(edge.caPem)
    this.memory = { ...memory }
    this.#onMemory = onMemory
  }

  /** Epoch milliseconds by the edge's clock. */
  now(): number {
    return Date.now() + this.memory.clockOffsetMs
  }

  getEdge(): Promise<EdgeResponse> {
    return this.#call(EdgeResponse, { method: 'GET', path: '/v1/edge' })
  }

  getSession(session: Session): Promise<SessionResponse> {
    return this.#call(SessionResponse, { method: 'GET', path: '/v1/session', session })
  }

  async endSession(session: Session): Promise<void> {
    await this.#call(v.unknown(), { method: 'DELETE', path: '/v1/session', session })
  }

  issueClientCertificate(
    session: Session,
    body: ClientCertificateRequest,
  ): Promise<ClientCertificateResponse> {
    return this.#call(ClientCertificateResponse, {
      method: 'POST',
      path: '/v1/certificates/client',
      session,
      body,
    })
  }

  issueSshCertificate(session: Session, body: SshCertificateRequest): Promise<SshCertificateResponse> {
    return this.#call(SshCertificateResponse, {
      method: 'POST',
      path: '/v1/certificates/ssh',
      session,
      body,
    })
  }

  getSshHostKeys(session: Session, name: string): Promise<SshHostKeysResponse> {
    return this.#call(SshHostKeysResponse, {
      method: 'GET',
      path: `${servicePath(name)}/ssh-host-keys`,
      session,
    })
  }

  acceptSshHostKeys(session: Session, name: string): Promise<SshHostKeysResponse> {
    const path = `${servicePath(name)}/ssh-host-keys/accept`
    return this.#call(SshHostKeysResponse, { method: 'POST', path, session })
  }

  revoke(session: Session, body: RevocationRequest): Promise<RevocationResponse> {
    return this.#call(RevocationResponse, { method: 'POST', path: '/v1/revocations', session, body })
  }

  claimService(session: Session, body: ClaimServiceRequest): Promise<ClaimServiceResponse> {
    return this.#call(ClaimServiceResponse, { method: 'POST', path: '/v1/services', session, body })
  }

  async listServices(session: Session): Promise<ListServicesResponse['services']> {
    return (await this.#call(ListServicesResponse, { method: 'GET', path: '/v1/services', session })).services
  }

  async getService(session: Session, name: string): Promise<ServiceResponse['service']> {
    return (await this.#call(ServiceResponse, { method: 'GET', path: servicePath(name), session })).service
  }

  async updateService(
    session: Session,
    name: string,
    body: UpdateServiceRequest,
  ): Promise<ServiceResponse['service']> {
    return (await this.#call(ServiceResponse, { method: 'PATCH', path: servicePath(name), session, body }))
      .service
  }

  async deleteService(session: Session, name: string): Promise<void> {
    await this.#call(v.unknown(), { method: 'DELETE', path: servicePath(name), session })
  }

  issueConnectorCertificate(
    session: Session,
    body: ConnectorCertificateRequest,
  ): Promise<ConnectorCertificateResponse> {
    return this.#call(ConnectorCertificateResponse, {
      method: 'POST',
      path: '/v1/connectors',
      session,
      body,
    })
  }

  /** @param jws signed by the old key, see RenewConnectorRequest */
  renewConnectorCertificate(jws: string): Promise<ConnectorCertificateResponse> {
    return this.#call(ConnectorCertificateResponse, {
      method: 'POST',
      path: '/v1/connectors/renew',
      body: { jws },
    })
  }

  makeEnrollToken(
    session: Session,
    name: string,
    body: MakeEnrollTokenRequest,
  ): Promise<MakeEnrollTokenResponse> {
    const path = `${servicePath(name)}/enroll-tokens`
    return this.#call(MakeEnrollTokenResponse, { method: 'POST', path, session, body })
  }

  cancelEnrollTokens(session: Session, name: string): Promise<CancelEnrollTokensResponse> {
    const path = `${servicePath(name)}/enroll-tokens`
    return this.#call(CancelEnrollTokensResponse, { method: 'DELETE', path, session })
  }

  /** Without a session: the token in the body is all there is. */
  enrollConnector(body: EnrollConnectorRequest): Promise<EnrollConnectorResponse> {
    return this.#call(EnrollConnectorResponse, { method: 'POST', path: '/v1/connectors/enroll', body })
  }

  /** @param jws see SSH_HOST_JWS_TYPE */
  issueSshHostCertificates(jws: string): Promise<SshHostCertificatesResponse> {
    return this.#call(SshHostCertificatesResponse, {
      method: 'POST',
      path: '/v1/connectors/ssh-host-certificates',
      body: { jws },
    })
  }

  /** @param jws see SSH_HOST_KEYS_JWS_TYPE
   *  @throws HOST_KEY_CHANGED when these are not the keys that the owner has accepted */
  async reportSshHostKeys(jws: string): Promise<void> {
    await this.#call(v.unknown(), { method: 'POST', path: '/v1/connectors/ssh-host-keys', body: { jws } })
  }

  /** Nothing of it is believed before `verifySshAuthorityList` says so. */
  getSshAuthorities(): Promise<SshAuthoritiesResponse> {
    return this.#call(SshAuthoritiesResponse, { method: 'GET', path: '/v1/ssh/cas' })
  }

  /** The list of revoked ssh certificates as it is, not yet looked at.
   *  @param authorities fingerprints of the CAs that may be named in it */
  async getSshKrl(authorities: readonly string[]): Promise<Buffer> {
    const query = new URLSearchParams(authorities.map((fingerprint): [string, string] => ['ca', fingerprint]))
    const wanted = { method: 'GET', path: `/v1/ssh/krl?${query}` } as const
    const answer = await this.#request(wanted)
    if (answer.status === 200) return answer.body
    return processAnswer(v.never(), answer, `${wanted.method} ${wanted.path}`)
  }

  async listAudit(session: Session, query: URLSearchParams): Promise<ListAuditResponse['records']> {
    const path = query.size > 0 ? `/v1/audit?${query}` : '/v1/audit'
    return (await this.#call(ListAuditResponse, { method: 'GET', path, session })).records
  }

  async exportAudit(session: Session, query: URLSearchParams): Promise<ExportAuditResponse['records']> {
    const path = `/v1/audit/export?${query}`
    return (await this.#call(ExportAuditResponse, { method: 'GET', path, session })).records
  }

  /** For answers that did not come through this class: openid-client's. */
  remember(answer: HttpsAnswer): void {
    const { memory } = this
    const nonce = answer.headers['dpop-nonce']
    const moved =
      answer.clockOffsetMs !== undefined && Math.abs(answer.clockOffsetMs - memory.clockOffsetMs) > 2_000
    const renonced = typeof nonce === 'string' && nonce !== memory.dpopNonce
    if (moved) memory.clockOffsetMs = answer.clockOffsetMs!
    if (renonced) memory.dpopNonce = nonce
    const cas = answer.headers[EDGE_CAS_HEADER]
    if (typeof cas === 'string') this.toldCas = cas
    if (moved || renonced) this.#onMemory?.(memory)
  }

  /** For endpoints that have a file of their own beside this one. */
  call<S extends v.GenericSchema>(schema: S, wanted: EndpointRequest): Promise<v.InferOutput<S>> {
    return this.#call(schema, wanted)
  }

  [Symbol.dispose](): void {
    this.agent.destroy()
  }

  async #call<S extends v.GenericSchema>(schema: S, wanted: EndpointRequest): Promise<v.InferOutput<S>> {
    const what = `${wanted.method} ${wanted.path}`
    const { clockOffsetMs } = this.memory
    let answer = await this.#request(wanted)
    if (wanted.session && asksForNonce(answer)) answer = await this.#request(wanted)
    try {
      return processAnswer(schema, answer, what)
    } catch (error) {
      // this very answer told how much our clock is off, or that it has been set since
      const isMeasured = this.memory.clockOffsetMs !== clockOffsetMs
      if (!wanted.session || !isMeasured || !isClockOff(error)) throw error
      return processAnswer(schema, await this.#request(wanted), what)
    }
  }

  async #request({ method, path, body, session }: EndpointRequest): Promise<HttpsAnswer> {
    const url = new URL(path, this.origin)
    const headers: Record<string, string> = { accept: 'application/json' }
    if (body) headers['content-type'] = 'application/json'
    if (session) {
      headers.authorization = `DPoP ${session.accessToken}`
      headers.dpop = createProof(session.dpopKey, {
        method,
        url,
        now: this.now(),
        nonce: this.memory.dpopNonce,
        accessToken: session.accessToken,
      })
    }
    const answer = await requestHttps(this.agent, url, {
      method,
      headers,
      body: body && JSON.stringify(body),
    })
    this.remember(answer)
    return answer
  }
}

/** @throws the edge's own error, or PROTOCOL_INVALID when this is not an answer of an edge */
export function processAnswer<S extends v.GenericSchema>(
  schema: S,
  answer: HttpsAnswer,
  what: string,
): v.InferOutput<S> {
  const body = parseJson(answer.body)
  if (answer.status >= 400) throw processError(answer, body, what)
  const result = v.safeParse(schema, body)
  if (result.success && answer.status >= 200 && answer.status < 300) return result.output
  throw new PosternError(
    'PROTOCOL_INVALID',
    `the edge gave an unexpected answer to ${what} (${answer.status})`,
  )
}

function processError(answer: HttpsAnswer, body: unknown, what: string): PosternError {
  const result = v.safeParse(ErrorResponse, body)
  if (!result.success) {
    return new PosternError('PROTOCOL_INVALID', `${what} failed with HTTP status ${answer.status}`)
  }
  const { code, message, hint, details } = result.output.error
  const error = fromPublicError(
    { code, message, hint },
    answer.status >= 500 ? 'INTERNAL' : 'REQUEST_INVALID',
  )
  return details ? new PosternError(error.code, error.message, { hint: error.hint, details }) : error
}

/** RFC 9449 §9: the proof lacked the nonce that this very answer brings. */
function asksForNonce(answer: HttpsAnswer): boolean {
  return answer.status === 401 && /\buse_dpop_nonce\b/.test(answer.headers['www-authenticate'] ?? '')
}

export function isClockOff(error: unknown): boolean {
  return error instanceof PosternError && error.code === 'CLOCK_OFF'
}

function parseJson(body: Buffer): unknown {
  try {
    return body.length === 0 ? {} : JSON.parse(body.toString('utf8'))
  } catch {
    return undefined
  }
}

function servicePath(name: string): string {
  return `/v1/services/${encodeURIComponent(name)}`
}
