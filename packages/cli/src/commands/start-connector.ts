import { PosternError } from '@postern/shared/errors'
import { type AllowList, describeAllowList, sameAllowList } from '@postern/shared/identity'
import { registerConnector } from '../connector/certificate.ts'
import type { Report } from '../connector/events.ts'
import type { Begun } from '../connector/serve-service.ts'
import type { ServiceSettings } from '../connector/service-settings.ts'
import { type Slot, type StoredService, takeSlot, takeStoredSlot } from '../connector/slots.ts'
import { callSignedIn, type LoginPolicy } from '../credentials/fresh.ts'
import { stateFolder } from '../credentials/home.ts'
import { edgeNow, type KnownEdge, pickEdge } from '../credentials/known-edge.ts'
import { readSession } from '../credentials/session.ts'

/** How a connector gets the certificate that it starts with. */

type Start = Omit<Begun, 'edge'>

/** @throws what keeps it from starting */
export async function startConnector(
  settings: ServiceSettings,
  policy: LoginPolicy,
  report: Report,
): Promise<Begun> {
  const { enrollTokenFile } = settings
  if (enrollTokenFile !== undefined) return startEnrolled({ ...settings, enrollTokenFile }, report)
  const edge = pickEdge(stateFolder(), settings.edge)
  return { edge, ...(await start(edge, settings, policy)) }
}

/** On a server without a person: the certificate of an earlier run, else one for the token. No session is looked for,
 *  and once there is a certificate the token's file is not even opened. */
async function startEnrolled(
  settings: ServiceSettings & { enrollTokenFile: string },
  report: Report,
): Promise<Begun> {
  const { findEdgeToEnroll } = await import('./enroll-edge.ts')
  const edge = await findEdgeToEnroll(settings)
  const stored = takeStoredSlot(edge, settings)
  if (stored) return { edge, ...stored }
  const { enrollConnector } = await import('../connector/enroll.ts')
  const { enrollTokenFile: tokenFile } = settings
  const { host, ...started } = await enrollConnector(edge, tokenFile, settings)
  report({ event: 'enrolled', host, connectorId: started.certificate.connectorId, tokenFile })
  return { edge, ...started }
}

/** With a session: claims the service and registers this process. Without one: goes on with the certificate that
 *  an earlier run left, so that a server comes back after a restart without anybody signing in. */
async function start(edge: KnownEdge, settings: ServiceSettings, policy: LoginPolicy): Promise<Start> {
  const stored = settings.replaceAllowList ? undefined : takeStoredSlot(edge, settings)
  if (!stored) return claim(edge, settings, policy)
  if (!hasLiveSession(edge)) return stored
  try {
    return await claim(edge, settings, { ...policy, mayAsk: false }, stored)
  } catch (error) {
    if (canGoOnWithout(error)) return stored
    stored.slot[Symbol.dispose]()
    throw error
  }
}

async function claim(
  edge: KnownEdge,
  settings: ServiceSettings,
  policy: LoginPolicy,
  stored?: { slot: Slot; service: StoredService },
): Promise<Start> {
  const { name, label, allow, replaceAllowList } = settings
  return callSignedIn(edge, policy, async (api, session) => {
    const { service } = await api.claimService(session, {
      name,
      type: 'tls',
      ...(label === undefined ? {} : { label }),
      ...(allow === undefined ? {} : { allow: copyAllowList(allow) }),
      ...(replaceAllowList ? { replaceAllowList } : {}),
    })
    const kept = stored?.service.id === service.id ? stored.slot : undefined
    const slot = kept ?? takeSlot(edge, { id: service.id, name, label: service.label, host: service.host })
    const certificate = await registerConnector(api, session, service.id, slot)
    if (!kept) stored?.slot[Symbol.dispose]()
    return { slot, certificate }
  })
}

/** Looks at what the edge says of a service: it says the same when a session claims it.
 *  @throws ALLOW_LIST_DIFFERS, from what it returns: a restart must never undo a list that was tightened meanwhile */
export function checkAllowList({ allow, replaceAllowList }: ServiceSettings) {
  return (service: { name: string; allow: AllowList }): void => {
    if (allow && !replaceAllowList) refuseDifference(service.name, service.allow, allow)
  }
}

function refuseDifference(name: string, has: AllowList, wanted: AllowList): void {
  if (sameAllowList(has, wanted)) return
  throw new PosternError(
    'ALLOW_LIST_DIFFERS',
    `"${name}" admits ${describeAllowList(has)}; asked for was ${describeAllowList(wanted)}`,
    { details: { current: has, wanted } },
  )
}

function hasLiveSession(edge: KnownEdge): boolean {
  const session = readSession(edge)
  return session !== undefined && session.expiresAt > edgeNow(edge)
}

function canGoOnWithout(error: unknown): boolean {
  return (
    error instanceof PosternError &&
    /^(SIGN_IN_REQUIRED|SESSION_ENDED|EDGE_UNREACHABLE|EDGE_STOPPING|TRANSPORT_REFUSED|PROXY_.*)$/.test(
      error.code,
    )
  )
}

function copyAllowList(list: AllowList) {
  return { ...list, emailDomains: [...list.emailDomains], emailAddresses: [...list.emailAddresses] }
}
