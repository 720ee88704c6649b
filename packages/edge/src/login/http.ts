import { randomUUID } from 'node:crypto'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { ERRORS, type ErrorCode, PosternError, toPublicError } from '@postern/shared/errors'
import { clientAddressOf } from './client-address.ts'
import { askUserCode, showDone, takeUserCode } from './device.ts'
import { limitBody } from './form-post.ts'
import {
  askConfirmation,
  beginLogin,
  CALLBACK_PATH,
  cancelLogin,
  confirmLogin,
  DEV_PATH,
  type Exchange,
  finishDevSignIn,
  finishUpstream,
  type InteractionParts,
  send,
} from './interaction.ts'
import { DEVICE_DONE_PATH, ROUTES } from './issuer.ts'
import { showError } from './pages.ts'
import { recordRefused } from './record-refused.ts'

/** The login's doors. A path that is not in these two tables is not answered by the library either, whatever it
 *  would mount; `HEAD` and `OPTIONS` find nothing. */

type Method = 'GET' | 'POST'

const PROVIDER_ROUTES: Readonly<Record<string, Method>> = {
  '/.well-known/openid-configuration': 'GET',
  '/.well-known/oauth-authorization-server': 'GET',
  [ROUTES.authorization]: 'GET',
  [ROUTES.token]: 'POST',
  [ROUTES.jwks]: 'GET',
  [ROUTES.revocation]: 'POST',
  [ROUTES.introspection]: 'POST',
}

export interface DoorParts extends InteractionParts {
  /** Whether programs without a browser may ask for a code. */
  device: boolean
  countRefused: (code: ErrorCode) => void
  callProvider(req: IncomingMessage, res: ServerResponse): Promise<void>
}

type Handler = (exchange: Exchange, parts: InteractionParts) => Promise<void>

interface Route {
  method: Method
  handler: Handler
}

/** Ids of oidc-provider. */
const UID = '([A-Za-z0-9_-]{20,64})'
const RESUME = new RegExp(`^${ROUTES.authorization}/${UID}$`)
const LOGIN = new RegExp(`^/login/${UID}$`)
const CONFIRM = new RegExp(`^/login/${UID}/confirm$`)
const CANCEL = new RegExp(`^/login/${UID}/cancel$`)

/** Answers a request of the login.
 *  @returns false when it is none: nothing was read and nothing written */
export async function handleLogin(
  req: IncomingMessage,
  res: ServerResponse,
  parts: DoorParts,
): Promise<boolean> {
  const path = (req.url ?? '').split('?', 1)[0]!
  if (!isOurs(path, parts)) return false
  try {
    requireOwnHost(req, parts.origin)
    parts.strangers.admitLogin(clientAddressOf(req))
    const url = new URL(req.url ?? '', parts.origin)
    await answer({ req, res, url }, path, parts)
  } catch (error) {
    const told = parts.strangers.judge(error, clientAddressOf(req))
    const code = answerError({ req, res }, path, told, parts)
    await recordRefused({ code, clientAddress: clientAddressOf(req) }, parts.record)
  }
  return true
}

function isOurs(path: string, { device }: DoorParts): boolean {
  if (device && (path === ROUTES.code_verification || path === DEVICE_DONE_PATH)) return true
  return Object.hasOwn(PROVIDER_ROUTES, path) || path.startsWith('/oauth/') || path.startsWith('/login/')
}

function providerMethodOf(path: string, { device }: DoorParts): Method | undefined {
  if (RESUME.test(path)) return 'GET'
  if (device && path === ROUTES.device_authorization) return 'POST'
  return PROVIDER_ROUTES[path]
}

async function answer(exchange: Exchange, path: string, parts: DoorParts): Promise<void> {
  const { req } = exchange
  const resumed = RESUME.exec(path)?.[1]
  const provided = providerMethodOf(path, parts)
  const own = provided === undefined ? findRoute(path, req.method) : undefined
  if ((provided ?? own?.method) !== req.method) {
    throw new PosternError('NOT_FOUND', 'there is no such page')
  }
  if (req.method === 'POST') limitBody(req)
  if (own) return await own.handler(exchange, parts)
  if (path === ROUTES.authorization || path === ROUTES.device_authorization) {
    parts.pending.admit(clientAddressOf(req), parts.clock())
  }
  // finished, or replaced by the new one that the library begins
  if (resumed !== undefined) parts.pending.remove(resumed)
  await parts.callProvider(req, exchange.res)
}

function findRoute(path: string, method: string | undefined): Route | undefined {
  if (path === CALLBACK_PATH) return { method: 'GET', handler: finishUpstream }
  if (path === ROUTES.code_verification) {
    return method === 'POST' ? { method, handler: takeUserCode } : { method: 'GET', handler: askUserCode }
  }
  if (path === DEVICE_DONE_PATH) return { method: 'GET', handler: showDone }
  if (path === DEV_PATH) return { method: 'POST', handler: finishDevSignIn }
  const uid = (LOGIN.exec(path) ?? CONFIRM.exec(path) ?? CANCEL.exec(path))?.[1]
  if (uid === undefined) return undefined
  if (LOGIN.test(path)) return { method: 'GET', handler: (at, parts) => beginLogin(at, uid, parts) }
  if (CANCEL.test(path)) return { method: 'POST', handler: (at, parts) => cancelLogin(at, uid, parts) }
  if (method === 'GET') return { method, handler: (at, parts) => askConfirmation(at, uid, parts) }
  return { method: 'POST', handler: (at, parts) => confirmLogin(at, uid, parts) }
}

/** The library builds its addresses from `Host`, the proofs' `htu` among them; so a `Host` that is not the
 *  origin's, or not the name the connection was opened for (SNI), ends here. */
function requireOwnHost(req: IncomingMessage, origin: string): void {
  const own = new URL(origin)
  const { servername } = req.socket as { servername?: string | false | null }
  const isOwnHost = req.headers.host?.toLowerCase() === own.host
  const isOwnName = !servername || servername.toLowerCase() === own.hostname
  if (isOwnHost && isOwnName && req.url?.startsWith('/') && !req.url.startsWith('//')) return
  throw new Misdirected()
}

/** HTTP 421, which no code of the table has. */
class Misdirected extends PosternError {
  constructor() {
    super('REQUEST_INVALID', 'this connection was opened for another host')
  }
}

function answerError(
  { req, res }: Pick<Exchange, 'req' | 'res'>,
  path: string,
  error: unknown,
  { log, countRefused }: Pick<DoorParts, 'log' | 'countRefused'>,
): ErrorCode {
  const requestId = randomUUID()
  const failure = toPublicError(error, requestId)
  countRefused(failure.code)
  if (failure.code === 'INTERNAL') {
    log.error('login.failed', {
      requestId,
      code: failure.code,
      error: error instanceof Error ? error.stack : String(error),
    })
  } else {
    const clientAddress = clientAddressOf(req)
    log.info('login.request_refused', { code: failure.code, reason: failure.message, clientAddress })
  }
  if (res.headersSent) {
    res.destroy()
    return failure.code
  }
  const status = error instanceof Misdirected ? 421 : ERRORS[failure.code].http
  // what was not read of the body must not be taken for the next request
  if (!req.complete) res.setHeader('Connection', 'close')
  const { retryAfterSeconds } = (error instanceof PosternError && error.details) || {}
  if (retryAfterSeconds !== undefined) res.setHeader('Retry-After', String(retryAfterSeconds))
  if (isPage(path)) send(res, showError(res, failure, status))
  else sendOAuthError(res, status, failure)
  return failure.code
}

function isPage(path: string): boolean {
  return (
    path.startsWith(ROUTES.code_verification) ||
    path.startsWith('/login/') ||
    path.startsWith(ROUTES.authorization)
  )
}

function sendOAuthError(
  res: ServerResponse,
  status: number,
  failure: { code: string; message: string },
): void {
  res.statusCode = status
  res.setHeader('Content-Type', 'application/json')
  res.setHeader('Cache-Control', 'no-store')
  send(res, JSON.stringify({ error: 'invalid_request', error_description: failure.message }))
}
