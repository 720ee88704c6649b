import type { IncomingMessage, ServerResponse } from 'node:http'
import type { ErrorCode } from '@postern/shared/errors'
import type { Logger } from '@postern/shared/logger'
import type { Kysely } from 'kysely'
import type Provider from 'oidc-provider'
import type { EdgeConfig } from '../config/config.ts'
import type { Strangers } from '../limits/strangers.ts'
import type { Database } from '../store/schema.ts'
import { clientAddressOf } from './client-address.ts'
import { CodeAttempts, type CodeLimits } from './device-codes.ts'
import { nextNonce } from './dpop-nonce.ts'
import { type DoorParts, handleLogin } from './http.ts'
import { createIssuer, INTERACTION_SECONDS } from './issuer.ts'
import { loadLoginKeys } from './keys.ts'
import { createOidcAdapter } from './oidc-adapter.ts'
import { type PendingLimits, PendingLogins } from './pending-logins.ts'
import { createSessions, type RecordLogin, type SessionEndedListener } from './sessions.ts'
import { createUpstream } from './upstream.ts'
import { challengeOf, type ProvenRequest, type Verified, verifyRequest } from './verify-request.ts'

/** Who a person is: the edge as OIDC issuer that brokers to the company's provider, and the check of every API
 *  request. It refuses to grant without the person's own POST, to keep a browser session, to store a token, and
 *  to accept a token without its key. What a person *may* do is not decided here. */
export interface Login {
  /** Offer every request of the HTTPS room here first. @returns false when it is not the login's: nothing was
   *  read or written, hand it on */
  handle(req: IncomingMessage, res: ServerResponse): Promise<boolean>
  /** Who asks. @throws SIGN_IN_REQUIRED · SESSION_ENDED · DPOP_INVALID · CLOCK_OFF; answer with `headersFor` */
  verify(request: ProvenRequest): Promise<Verified>
  /** Headers of an API answer: always a fresh `DPoP-Nonce`, and `WWW-Authenticate` when `error` asks the client
   *  to prove itself (again). */
  headersFor(error?: unknown): Record<string, string>
  /** For whoever holds a session's id longer than a request: flows, certificates. */
  sessionIsLive(sessionId: string): Promise<boolean>
  /** Ends it everywhere at once; the second end changes nothing. @param reason `logout`, `revoked`, … */
  endSession(sessionId: string, reason: string): Promise<void>
  /** Called after a session was ended, not when it gets over by age. @returns stops the listening */
  onSessionEnded(listener: SessionEndedListener): () => void
}

export interface LoginParts {
  config: Pick<EdgeConfig, 'dataDir' | 'identity' | 'certificates' | 'login'>
  /** `https://<domain>[:<port>]`; a function where the port is known only after listening. Asked once, at the
   *  first request. */
  origin: string | (() => string)
  db: Kysely<Database>
  /** Epoch milliseconds. */
  clock: () => number
  log: Logger
  record: RecordLogin
  strangers: Pick<Strangers, 'admitLogin' | 'countLogin' | 'judge'>
  /** Somebody signs in: address and groups are written as the provider said them now, whether the login then
   *  succeeds or not. */
  identityUpdated?: (identityId: string) => Promise<void>
  /** A request was answered with this error. */
  countRefused?: (code: ErrorCode) => void
  /** For tests. */
  pendingLimits?: Partial<PendingLimits>
  codeLimits?: Partial<CodeLimits>
}

const PENDING_LIMITS: PendingLimits = {
  perAddress: 100,
  total: 10_000,
  attempts: 20,
  lifetimeMs: INTERACTION_SECONDS * 1_000,
}

const CODE_LIMITS: CodeLimits = {
  wrongPerAddress: 10,
  wrongInTotal: 10_000,
  perCode: 5,
  windowMs: INTERACTION_SECONDS * 1_000,
}

/** @throws STATE_INVALID the key file in `dataDir` is damaged */
export async function createLogin(parts: LoginParts): Promise<Login> {
  const { db, clock, log } = parts
  const keys = await loadLoginKeys(parts.config.dataDir)
  const sessions = createSessions({ db, clock, log, record: parts.record })
  const adapter = createOidcAdapter({ db, clock, sessions })
  const { identity } = parts.config
  const upstream = identity.kind === 'upstream' ? createUpstream({ identity, clock, log }) : undefined
  const pending = new PendingLogins({ ...PENDING_LIMITS, ...parts.pendingLimits })
  const codeAttempts = new CodeAttempts({ ...CODE_LIMITS, ...parts.codeLimits })
  const { device } = parts.config.login
  const { sessionMs } = parts.config.certificates

  const originOf = once(
    () => new URL(typeof parts.origin === 'string' ? parts.origin : parts.origin()).origin,
  )
  const doorParts = once((): DoorParts => {
    const origin = originOf()
    const onRefused = (req: IncomingMessage) => parts.strangers.countLogin(clientAddressOf(req))
    const { record } = parts
    const provider = createIssuer({ origin, keys, sessionMs, device, db, adapter, log, record, onRefused })
    countPending(provider, pending, clock)
    const callProvider = provider.callback()
    return {
      ...parts,
      identityUpdated: parts.identityUpdated ?? (async () => {}),
      countRefused: parts.countRefused ?? (() => {}),
      origin,
      provider,
      callProvider,
      upstream,
      sessions,
      pending,
      codeAttempts,
      device,
      sessionMs,
    }
  })

  return {
    handle: (req, res) => handleLogin(req, res, doorParts()),
    verify: (request) =>
      verifyRequest(request, { origin: originOf(), nonceSecret: keys.nonceSecret, db, clock, sessions }),
    headersFor: (error) => ({ 'DPoP-Nonce': nextNonce(keys.nonceSecret, clock()), ...challengeOf(error) }),
    sessionIsLive: sessions.isLive,
    endSession: sessions.end,
    onSessionEnded: sessions.onEnded,
  }
}

function countPending(provider: Provider, pending: PendingLogins, clock: () => number): void {
  provider.on('interaction.started', (ctx) => {
    const uid = ctx.oidc.entities.Interaction?.uid
    if (uid !== undefined) pending.add(uid, clientAddressOf(ctx.req), clock())
  })
  provider.on('device_authorization.success', (ctx) => {
    const code = ctx.oidc.entities.DeviceCode?.jti
    if (code !== undefined) pending.add(code, clientAddressOf(ctx.req), clock())
  })
}

function once<T>(make: () => T): () => T {
  let made: { value: T } | undefined
  return () => {
    made ??= { value: make() }
    return made.value
  }
}
