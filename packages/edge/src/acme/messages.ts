import { X509Certificate } from 'node:crypto'
import { PosternError } from '@postern/shared/errors'
import * as v from 'valibot'

/** What an ACME server says (RFC 8555 §7.1), as far as the edge needs it. It is a stranger: everything is bounded, and a
 *  URL of it is https or nothing. */

const text = v.pipe(v.string(), v.maxLength(2_048))
const url = v.pipe(
  text,
  v.check((value) => URL.canParse(value) && new URL(value).protocol === 'https:'),
)

/** Details are for people and logs. */
const Problem = v.object({
  type: v.optional(v.fallback(text, ''), ''),
  detail: v.optional(v.fallback(v.string(), ''), ''),
})

export const Directory = v.object({
  newNonce: url,
  newAccount: url,
  newOrder: url,
  /** RFC 9773; one that cannot be used is as none. */
  renewalInfo: v.optional(v.fallback(v.optional(url), undefined)),
  meta: v.optional(v.object({ externalAccountRequired: v.optional(v.boolean()) })),
})

/** RFC 3339. */
const time = v.pipe(
  v.string(),
  v.regex(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)$/),
  v.transform(Date.parse),
  v.number(), // NaN is none
)

/** When a certificate should be replaced (RFC 9773 §4.2). */
export const RenewalInfo = v.object({
  suggestedWindow: v.pipe(
    v.object({ start: time, end: time }),
    v.check(({ start, end }) => start < end),
  ),
  /** A page that says why. */
  explanationURL: v.optional(v.fallback(v.optional(url), undefined)),
})

export const Order = v.object({
  status: text,
  authorizations: v.pipe(v.array(url), v.maxLength(200)),
  finalize: url,
  certificate: v.optional(url),
  error: v.optional(Problem),
})

export const Authorization = v.object({
  identifier: v.object({ type: v.literal('dns'), value: v.pipe(text, v.maxLength(253)) }),
  status: text,
  challenges: v.pipe(
    v.array(
      v.object({
        type: text,
        url,
        // other kinds of challenge may have none; RFC 8555 §8: base64url
        token: v.optional(v.pipe(text, v.regex(/^[A-Za-z0-9_-]{1,256}$/))),
        error: v.optional(Problem),
      }),
    ),
    v.maxLength(20),
  ),
})

export type Problem = v.InferOutput<typeof Problem>
export type Directory = v.InferOutput<typeof Directory>
export type RenewalInfo = v.InferOutput<typeof RenewalInfo>
export type Order = v.InferOutput<typeof Order>
export type Authorization = v.InferOutput<typeof Authorization>

export interface AcmeAnswer {
  status: number
  header(name: string): string | undefined
  body: Buffer
}

/** @throws ACME_PROTOCOL_INVALID */
export function readMessage<T>(schema: v.GenericSchema<unknown, T>, { body }: AcmeAnswer, what: string): T {
  const result = v.safeParse(schema, parseJson(body))
  if (result.success) return result.output
  const where = v.getDotPath(result.issues[0]) ?? 'all of it'
  throw new PosternError('ACME_PROTOCOL_INVALID', `the ACME server's ${what} cannot be understood: ${where}`)
}

/** What an answer with a status of 400 and more says. Never throws: a proxy may answer with a page. */
export function readProblem({ body }: Pick<AcmeAnswer, 'body'>): Problem {
  const result = v.safeParse(Problem, parseJson(body))
  return result.success ? result.output : { type: '', detail: '' }
}

const URN = 'urn:ietf:params:acme:error:'
const MAX_DETAIL = 400

/** `rateLimited`; empty where there is none. */
export function problemKind({ type }: Problem): string {
  return type.startsWith(URN) ? type.slice(URN.length) : ''
}

/** `rateLimited: too many certificates`, without what would steer a terminal. */
export function describeProblem(problem: Problem): string {
  const words = [problemKind(problem) || problem.type, problem.detail].filter(Boolean).join(': ')
  return words.replace(/\p{C}+/gu, ' ').slice(0, MAX_DETAIL) || 'it does not say why'
}

/** Longest wait that a server is believed: a week is the longest window of a public CA. */
export const MAX_RETRY_AFTER_MS = 7 * 86_400_000

/** Seconds or a date (RFC 9110 §10.2.3).
 *  @returns milliseconds from now, undefined for nothing that is understood */
export function readRetryAfter(header: string | undefined, now: number): number | undefined {
  if (header === undefined) return undefined
  const ms = /^\d{1,15}$/.test(header) ? Number(header) * 1_000 : Date.parse(header) - now
  return Number.isNaN(ms) ? undefined : Math.min(Math.max(ms, 0), MAX_RETRY_AFTER_MS)
}

const MAX_CHAIN = 10
const CERTIFICATE = /-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----/g

/** The chain that was downloaded, leaf first, and nothing else of what came with it (RFC 8555 §11.4).
 *  @throws ACME_PROTOCOL_INVALID */
export function readChain({ body }: Pick<AcmeAnswer, 'body'>): string {
  const found = body.toString('latin1').match(CERTIFICATE) ?? []
  try {
    if (found.length === 0 || found.length > MAX_CHAIN) throw new Error(`${found.length} certificates`)
    return found.map((pem) => new X509Certificate(pem).toString()).join('')
  } catch (cause) {
    throw new PosternError('ACME_PROTOCOL_INVALID', 'the ACME server sent no certificate that can be read', {
      cause,
    })
  }
}

function parseJson(body: Buffer): unknown {
  try {
    return JSON.parse(body.toString('utf8'))
  } catch {
    return undefined
  }
}
