import * as v from 'valibot'
import { timestamp } from './fields.ts'

/** `GET /v1/audit?after=<seq>&limit=<n>&type=<type>`: newest last. Needs an admin. */
export const AuditRecord = v.looseObject({
  seq: v.number(),
  at: timestamp,
  type: v.string(),
})
export const ListAuditResponse = v.object({ records: v.array(AuditRecord) })

export type AuditRecord = v.InferOutput<typeof AuditRecord>
export type ListAuditResponse = v.InferOutput<typeof ListAuditResponse>
