import path from 'node:path'
import { ERRORS, PosternError } from '@postern/shared/errors'
import { EdgeApi } from '../api/edge-api.ts'
import { printable, tell } from '../io.ts'
import { forgetSshKeys } from '../ssh/key-files.ts'
import { forgetCertificates } from './cache.ts'
import { followCas } from './edge-cas.ts'
import { type KnownEdge, loginLine, readRemembered, saveRemembered, withOrigin } from './known-edge.ts'
import { takeLock } from './lock.ts'
import { forgetSession, readSession, type Session, saveSession } from './session.ts'
import { readStateFile, writeStateFile } from './state-file.ts'

/** Calls to the edge's API in the name of the person: with the stored session, a refreshed one, or after a new
 *  login where a person can be asked. Whatever refreshes or logs in happens under the edge's lock, and looks again
 *  at what is stored once it has the lock: of twenty processes one logs in. */

/** How a login may happen while a command runs. */
export interface LoginPolicy {
  /** False: fail with SIGN_IN_REQUIRED at once, start no browser. */
  mayAsk: boolean
  /** See SignInOptions. */
  browser?: string | false | undefined
}

/** A token this close to its end is not used any more. */
const MARGIN_MS = 20_000
/** A login of five minutes and a little. */
const LOCK_TIMEOUT_MS = 330_000
/** Longer than a renewal, which is nobody's business: ssh would show it in every one of twenty sessions. */
const WAIT_QUIETLY_MS = 2_000
const FAILURE_SHAPE = { at: 'number' } as const

type Call<T> = (api: EdgeApi, session: Session) => Promise<T>

/** Runs `call`; when the edge no longer accepts the token, renews it and runs `call` once more.
 *  @throws SIGN_IN_REQUIRED · SESSION_ENDED with the line to paste · what `call` throws */
export async function callSignedIn<T>(edge: KnownEdge, policy: LoginPolicy, call: Call<T>): Promise<T> {
  return callEdge(edge, async (api) => {
    const session = await freshSession(edge, api, policy)
    try {
      return await call(api, session)
    } catch (error) {
      if (!isAboutSession(error)) throw error
      return await call(api, await freshSession(edge, api, policy, session.accessToken))
    }
  }).catch((error: unknown) => {
    throw withLoginLine(error, edge)
  })
}

/** Without a session. What the answers teach is kept in the edge's folder. */
export async function callEdge<T>(edge: KnownEdge, call: (api: EdgeApi) => Promise<T>): Promise<T> {
  using api = openApi(edge)
  try {
    return await call(api)
  } finally {
    await followCas(edge, api)
  }
}

/** The same, and what it says of its CAs is nobody's business: for who only looks. */
export function openApi(edge: KnownEdge): EdgeApi {
  return new EdgeApi(edge, readRemembered(edge), (memory) => saveRemembered(edge, memory))
}

export function sessionLock(edge: Pick<KnownEdge, 'folder'>, signal?: AbortSignal) {
  return takeLock(path.join(edge.folder, 'lock'), {
    timeoutMs: LOCK_TIMEOUT_MS,
    waitQuietlyMs: WAIT_QUIETLY_MS,
    onWait: () => tell('waiting for another postern process, which is signing in'),
    signal,
  })
}

/** Stores a new login; certificates of the one before, perhaps another person's, are forgotten. */
export function storeLogin(edge: KnownEdge, session: Session): void {
  forgetCertificates(edge)
  forgetSshKeys(edge)
  saveSession(edge, session)
}

/** @param refused access token that the edge did not accept */
async function freshSession(
  edge: KnownEdge,
  api: EdgeApi,
  policy: LoginPolicy,
  refused?: string,
): Promise<Session> {
  const stored = readSession(edge)
  if (stored && isUsable(stored, api, refused)) return stored
  if (!stored && !policy.mayAsk) throw signInRequired(edge)

  const waitingSince = Date.now()
  using _lock = await sessionLock(edge)
  const current = readSession(edge)
  if (current && isUsable(current, api, refused)) return current
  const refreshed = current && (await refresh(edge, api, current))
  if (refreshed) return refreshed
  if (!policy.mayAsk) {
    throw new PosternError('SESSION_ENDED', `your session at ${edge.origin} has ended`)
  }
  refuseAfterFailure(edge, waitingSince)
  // awaited here: the lock is held to the end of this function and no further
  return await logIn(edge, api, policy)
}

function isUsable(session: Session, api: EdgeApi, refused: string | undefined): boolean {
  return session.accessToken !== refused && session.accessExpiresAt - MARGIN_MS > api.now()
}

/** Asks the edge, whatever this machine's clock says: a clock that ran ahead must not cost anybody the session.
 *  @returns undefined when the session is over */
async function refresh(edge: KnownEdge, api: EdgeApi, session: Session): Promise<Session | undefined> {
  const { refreshTokens } = await import('../login/oauth.ts')
  try {
    const refreshed = await refreshTokens(edge, api, session)
    saveSession(edge, refreshed)
    return refreshed
  } catch (error) {
    if (!(error instanceof PosternError) || error.code !== 'SESSION_ENDED') throw error
    forgetSession(edge)
    return undefined
  }
}

async function logIn(edge: KnownEdge, api: EdgeApi, policy: LoginPolicy): Promise<Session> {
  const { signIn } = await import('../login/sign-in.ts')
  // Ctrl-C ends the process at once; who was killed leaves no word, and the next in line may ask
  const noteFailure = () => writeStateFile(failureFile(edge), { at: Date.now() })
  process.once('exit', noteFailure)
  try {
    const session = await signIn(api, edge, { browser: policy.browser })
    storeLogin(edge, session)
    tell(`signed in to ${edge.origin} as ${printable(session.email)}`)
    return session
  } catch (error) {
    noteFailure()
    throw error
  } finally {
    process.off('exit', noteFailure)
  }
}

/** Who waited for a login that then failed must not open the next browser window. */
function refuseAfterFailure(edge: KnownEdge, waitingSince: number): void {
  const failure = readStateFile(failureFile(edge), FAILURE_SHAPE)
  if (failure && failure.at >= waitingSince && failure.at <= Date.now()) {
    throw new PosternError('LOGIN_FAILED', 'the sign-in that this command waited for did not succeed')
  }
}

function failureFile(edge: KnownEdge): string {
  return path.join(edge.folder, 'failed-login.json')
}

function isAboutSession(error: unknown): boolean {
  return (
    error instanceof PosternError &&
    (error.code === 'SIGN_IN_REQUIRED' || error.code === 'SESSION_ENDED' || error.code === 'DPOP_INVALID')
  )
}

export function signInRequired(edge: Pick<KnownEdge, 'origin'>): PosternError {
  return new PosternError('SIGN_IN_REQUIRED', `you are not signed in to ${edge.origin}`)
}

/** Whatever the edge advised: the exact line comes first. */
function withLoginLine(error: unknown, edge: KnownEdge): unknown {
  if (!(error instanceof PosternError) || ERRORS[error.code].exit !== 4) return withOrigin(error, edge.origin)
  return new PosternError(error.code, error.message, {
    cause: error.cause,
    hint: `sign in: ${loginLine(edge.origin)}`,
    ...(error.details ? { details: error.details } : {}),
  })
}
