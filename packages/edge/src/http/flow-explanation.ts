import type { FlowExplanationResponse } from '@postern/shared/api/flow-explanation'
import { formatDuration } from '@postern/shared/duration'
import { PosternError } from '@postern/shared/errors'
import type { FlowClosed, FlowDecided, FlowRefused } from '../audit/event.ts'
import { listFlowEvents } from '../store/audit-events.ts'
import { findServiceById } from '../store/services.ts'
import type { ApiHandler, ApiParts } from './parts.ts'

type FlowEvent = (FlowDecided | FlowRefused | FlowClosed) & { at: number }

/** `GET /v1/flows/:id/explanation` */
export function explainFlow(parts: Pick<ApiParts, 'config' | 'db' | 'roles'>): ApiHandler {
  const { config, db, roles } = parts
  return async (c) => {
    const { identity } = c.get('caller')
    const flowId = c.req.param('id')!
    const events = (await listFlowEvents(db, flowId)).map(
      ({ at, event }) => ({ ...JSON.parse(event), at }) as FlowEvent,
    )
    const known = Object.assign({}, ...events) as Partial<FlowDecided> & { at: number }
    const service = known.serviceId === undefined ? undefined : await findServiceById(db, known.serviceId)
    const isReader = roles.of(identity).some((role) => role === 'admin' || role === 'auditor')
    const mayKnowRule = isReader || service?.ownerId === identity.id
    if (events.length === 0 || !(mayKnowRule || known.identityId === identity.id)) {
      throw new PosternError('FLOW_UNKNOWN', `you have no flow ${JSON.stringify(flowId.slice(0, 64))}`)
    }
    const answer: FlowExplanationResponse = {
      flowId,
      email: known.email ?? 'unknown',
      host: `${known.label}.${config.domain}`,
      clientAddress: known.clientAddress,
      events: events.map((event) => ({
        at: event.at,
        what: describe(event),
        code: event.code,
        rule: mayKnowRule && event.type === 'flow.decided' ? event.rule : undefined,
      })),
    }
    return c.json(answer)
  }
}

function describe(event: FlowEvent): string {
  switch (event.type) {
    case 'flow.decided':
      return event.decision === 'allow' ? 'it was admitted' : 'it was not admitted'
    case 'flow.refused':
      return 'it was refused before there was anything to decide'
    case 'flow.closed': {
      const carried = `${event.bytesUp} bytes up and ${event.bytesDown} bytes down in ${formatDuration(event.durationMs)}`
      return event.code === undefined ? `it ended, ${carried}` : `it was ended, ${carried}`
    }
  }
}
