import * as v from 'valibot'
import { timestamp } from './fields.ts'

/** `GET /v1/audit?after=<seq>&limit=<n>&type=…&code=…&flow=…&identity=…&service=…&since=<ms>&until=<ms>`: newest last.
 *  Needs an auditor. */
export const AuditRecord = v.looseObject({
  seq: v.number(),
  at: timestamp,
  type: v.string(),
})
export const ListAuditResponse = v.object({ records: v.array(AuditRecord) })

export type AuditRecord = v.InferOutput<typeof AuditRecord>
export type ListAuditResponse = v.InferOutput<typeof ListAuditResponse>

/** `GET /v1/audit/export?after=<seq>&until=<seq>&limit=<n>`: the records as they were written, oldest first; what the
 *  lines of an export are made of. Needs an auditor. */
export const ExportAuditResponse = v.object({
  records: v.array(
    v.union([
      v.object({
        ...{ seq: v.number(), at: timestamp, type: v.string(), event: v.string() },
        ...{ chain: v.string(), position: v.number(), previous: v.string(), hash: v.string() },
      }),
      v.object({ seq: v.number(), at: timestamp, type: v.string(), event: v.string() }),
    ]),
  ),
})

export type ExportAuditResponse = v.InferOutput<typeof ExportAuditResponse>
