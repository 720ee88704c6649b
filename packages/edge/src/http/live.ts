import type {
  Flow,
  FlowResponse,
  ListFlowsResponse,
  ListSessionsResponse,
} from '@postern/shared/api/revocations'
import { parseEmailAddress } from '@postern/shared/email'
import { PosternError } from '@postern/shared/errors'
import type { Identity } from '@postern/shared/identity'
import type { LiveFlow } from '../flow/live-flows.ts'
import { listIdentitiesByEmail } from '../store/identities.ts'
import { listServices } from '../store/services.ts'
import { listLiveSessions } from '../store/sessions.ts'
import type { ApiHandler, ApiParts } from './parts.ts'

/** Who is here now: flows and sessions. */

const MAX_FLOWS = 10_000

/** `GET /v1/flows` */
export function listFlows(parts: ApiParts): ApiHandler {
  return async (c) => {
    const maySee = await flowsFor(c.get('caller').identity, parts)
    const flows = parts.live.where({}).filter(maySee).slice(0, MAX_FLOWS).map(describe)
    return c.json({ flows } satisfies ListFlowsResponse)
  }
}

/** `GET /v1/flows/:id` */
export function showFlow(parts: ApiParts): ApiHandler {
  return async (c) => {
    const id = c.req.param('id')!
    const maySee = await flowsFor(c.get('caller').identity, parts)
    const flow = parts.live.find(id)
    if (!flow || !maySee(flow))
      throw new PosternError('FLOW_UNKNOWN', `there is no flow ${id} that you may see`)
    return c.json({ flow: describe(flow) } satisfies FlowResponse)
  }
}

/** `GET /v1/sessions` */
export function listSessions({ clock, db, live, roles }: ApiParts): ApiHandler {
  return async (c) => {
    const { identity } = c.get('caller')
    const email = c.req.query('email')
    let people: readonly Identity[] = [identity]
    if (email !== undefined) {
      const address = parseEmailAddress(email)
      if (address !== identity.email) roles.require(identity, 'auditor')
      people = await listIdentitiesByEmail(db, address)
      if (address === identity.email) people = people.filter(({ id }) => id === identity.id)
    }
    const found = await Promise.all(
      people.map(async (person) =>
        (await listLiveSessions(db, person.id, clock())).map((session) => ({ person, session })),
      ),
    )
    const sessions = found.flat().map(({ person, session }) => ({
      id: session.id,
      email: person.email,
      kind: session.kind,
      clientAddress: session.clientAddress,
      createdAt: session.createdAt,
      expiresAt: session.expiresAt,
      flows: live.where({ sessionId: session.id }).length,
    }))
    return c.json({ sessions } satisfies ListSessionsResponse)
  }
}

/** Auditors see all flows, owners those to their services, everybody their own. */
async function flowsFor(
  identity: Identity,
  { db, roles }: Pick<ApiParts, 'db' | 'roles'>,
): Promise<(flow: LiveFlow) => boolean> {
  const role = roles.of(identity)
  if (role.includes('admin') || role.includes('auditor')) return isShown
  const own = new Set((await listServices(db, { ownerId: identity.id })).map(({ id }) => id))
  return (flow) =>
    isShown(flow) && (flow.facts.identityId === identity.id || own.has(flow.facts.serviceId ?? ''))
}

function isShown(flow: LiveFlow): boolean {
  return flow.isAdmitted && flow.about !== undefined && !flow.signal.aborted
}

function describe({ id, about, facts, startedAt, decideAgainAt }: LiveFlow): Flow {
  return {
    id,
    ...about!,
    startedAt,
    sessionId: facts.sessionId ?? '',
    certificateSerial: facts.certificateSerial ?? '',
    connectorId: facts.connectorId,
    decideAgainAt,
  }
}
