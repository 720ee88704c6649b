import { formatDuration } from '@postern/shared/duration'
import { PosternError } from '@postern/shared/errors'
import { ALPN_FLOW } from '@postern/shared/protocol/frames'
import type { ServiceLabel } from '@postern/shared/service-label'
import { FramedEnd } from '@postern/shared/stream/framed-end'
import type { ClientCertificate } from '../credentials/cache.ts'
import { callSignedIn } from '../credentials/fresh.ts'
import { issueClientCertificate } from '../credentials/issue.ts'
import { edgePort, type KnownEdge, withOrigin } from '../credentials/known-edge.ts'
import { dialEdge } from '../tunnel/dial-edge.ts'
import { type Check, fail, ok, warn } from './check.ts'

/** What the edge thinks of this person: one session, one certificate, one flow. Never opens a browser. */

const SESSION_WARNING_MS = 10 * 60_000
/** The edge waits 10 s for a service by default. */
const FLOW_TIMEOUT_MS = 20_000
const POLICY = { mayAsk: false } as const

export interface Destination {
  label: ServiceLabel
  host: string
}

/** Session first; certificate and flow only with a destination, and each only after what it needs. */
export async function checkPerson(edge: KnownEdge, destination: Destination | undefined): Promise<Check[]> {
  const session = await checkSession(edge)
  if (session.state === 'fail' || !destination) return [session]
  try {
    const certificate = await issueClientCertificate(edge, destination.label, POLICY)
    const got = ok('certificate', `the edge signs one for ${destination.host}`)
    return [session, got, await checkFlow(edge, destination, certificate)]
  } catch (error) {
    return [session, failWith('certificate', error, edge)]
  }
}

async function checkSession(edge: KnownEdge): Promise<Check> {
  try {
    const { answer, now } = await callSignedIn(edge, POLICY, async (api, session) => ({
      answer: await api.getSession(session),
      now: api.now(),
    }))
    const leftMs = answer.session.expiresAt - now
    const sentence = `${answer.identity.email}, for ${formatDuration(leftMs)}`
    if (leftMs > SESSION_WARNING_MS) return ok('session', sentence)
    return warn('session', sentence, `sign in again: postern login --edge ${edge.origin}`)
  } catch (error) {
    return failWith('session', error, edge)
  }
}

async function checkFlow(
  edge: KnownEdge,
  { host }: Destination,
  certificate: ClientCertificate,
): Promise<Check> {
  try {
    await openOneFlow(edge, host, certificate)
    return ok('flow', `${host} accepts connections`)
  } catch (error) {
    return failWith('flow', error, edge)
  }
}

/** Opens a flow, waits until the service has accepted it, and ends it without a byte.
 *  @throws what the edge says */
async function openOneFlow(edge: KnownEdge, host: string, certificate: ClientCertificate): Promise<void> {
  const socket = await dialEdge({
    host: edge.domain,
    port: edgePort(edge),
    serverName: host,
    alpn: ALPN_FLOW,
    trust: { ...certificate, caPem: edge.caPem },
  })
  const end = new FramedEnd(socket)
  const timer = setTimeout(() => end.abort(timedOut(host)), FLOW_TIMEOUT_MS)
  try {
    await new Promise<void>((resolve, reject) => {
      end.receive({
        chunk() {},
        end() {},
        drain() {},
        cut: reject,
        control: (type) => type === 'ok' && resolve(),
      })
      end.resume()
      socket.once('close', () => reject(timedOut(host)))
    })
    await new Promise<void>((resolve) => end.end(resolve))
  } finally {
    clearTimeout(timer)
    socket.destroy()
  }
}

function timedOut(host: string): PosternError {
  return new PosternError('SERVICE_UNREACHABLE', `${host} did not answer`)
}

/** @throws what is not ours: a bug must not look like a finding */
function failWith(name: Check['name'], thrown: unknown, edge: KnownEdge): Check {
  const error = withOrigin(thrown, edge.origin)
  if (error instanceof PosternError) return fail(name, error)
  throw error
}
