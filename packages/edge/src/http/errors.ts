import { ERRORS, PosternError, toPublicError } from '@postern/shared/errors'
import type { Context } from 'hono'
import type { ContentfulStatusCode } from 'hono/utils/http-status'
import { clientHost } from './client-address.ts'
import type { ApiEnv, ApiParts } from './parts.ts'
import { recordRefusal } from './record-refusal.ts'

type AnswerError = (error: unknown, c: Context<ApiEnv>, status?: number) => Promise<Response>

/** What answering an error takes. */
export type AnswerParts = Pick<ApiParts, 'audit' | 'log' | 'login' | 'countRefused' | 'strangers'>

/** Turns whatever a handler threw into the one shape of an error. The cause goes to the log, under the request id
 *  that the person is told. */
export function answerError({ audit, log, login, countRefused, strangers }: AnswerParts): AnswerError {
  return async (thrown, c, wanted) => {
    const error = c.get('caller') ? thrown : strangers.judge(thrown, clientHost(c))
    const status = error === thrown ? wanted : undefined
    const requestId = c.get('requestId')
    const told = toPublicError(error, requestId)
    countRefused(told.code)
    const about = { requestId, path: c.req.path }
    if (told.code === 'INTERNAL' || told.code === 'RECORD_FAILED')
      log.error('api.failed', { ...about, code: told.code, error })
    else log.info('api.refused', { ...about, code: told.code, reason: told.message })
    await recordRefusal({ error, code: told.code }, c, audit)
    // what was not read of the body must not be taken for the next request
    if (!c.env.incoming.complete) c.header('Connection', 'close')
    for (const [name, value] of Object.entries(login.headersFor(error))) c.header(name, value)
    if (error instanceof PosternError && error.details?.retryAfterSeconds !== undefined)
      c.header('Retry-After', String(error.details.retryAfterSeconds))
    const details = error instanceof PosternError && told.code === error.code ? error.details : undefined
    return c.json(
      { error: { ...told, ...(details ? { details } : {}) } },
      (status ?? ERRORS[told.code].http) as ContentfulStatusCode,
    )
  }
}

export function answerUnknown(parts: AnswerParts): (c: Context<ApiEnv>) => Promise<Response> {
  return (c) =>
    answerError(parts)(new PosternError('NOT_FOUND', `there is nothing at ${c.req.method} ${c.req.path}`), c)
}
