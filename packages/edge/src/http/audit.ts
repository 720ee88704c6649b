import type { ListAuditResponse } from '@postern/shared/api/audit'
import * as v from 'valibot'
import { listAuditRecords } from '../audit/list.ts'
import type { ApiHandler, ApiParts } from './parts.ts'
import { readValue } from './read-body.ts'

const whole = (max: number) =>
  v.pipe(v.string(), v.regex(/^\d{1,15}$/, 'is not a whole number'), v.transform(Number), v.maxValue(max))

const Query = v.strictObject({
  after: v.optional(whole(Number.MAX_SAFE_INTEGER)),
  limit: v.optional(whole(1_000), '100'),
  type: v.optional(v.pipe(v.string(), v.maxLength(64))),
})

export function listAudit({ db }: Pick<ApiParts, 'db'>): ApiHandler {
  return async (c) => {
    const records = await listAuditRecords(db, readValue(Query, c.req.query()))
    return c.json({ records } satisfies ListAuditResponse)
  }
}
