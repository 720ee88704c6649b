import type { AuditRow } from '../store/audit-events.ts'
import type { AuditEvent } from './event.ts'

/** An event as the store takes it: whole, with the members beside it that it is looked for by. */
export function toRow(event: AuditEvent, at: number): AuditRow {
  return {
    at,
    type: event.type,
    flowId: 'flowId' in event ? event.flowId : undefined,
    identityId: 'identityId' in event ? event.identityId : undefined,
    serviceId: 'serviceId' in event ? event.serviceId : undefined,
    code: 'code' in event ? event.code : undefined,
    event: JSON.stringify(event),
  }
}
