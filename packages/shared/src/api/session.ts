import * as v from 'valibot'
import { timestamp } from './fields.ts'

/** `GET /v1/edge`, without a session: what a client must know before it signs in. */
/** Which CAs clients of an edge may believe that has its own: their fingerprints, `sha256:HEX`, oldest first, with a space between.
 *  In every answer, so that who believes others asks `/v1/edge` for these. */
export const EDGE_CAS_HEADER = 'postern-edge-cas'

const pem = v.pipe(v.string(), v.maxLength(8_192))

/** A CA that clients may believe, and the same CA signed by the one before it: the proof for who believes only that. */
export const EdgeAuthority = v.object({ certificate: pem, crossCertificate: v.optional(pem) })

export const EdgeResponse = v.object({
  domain: v.string(),
  /** The OIDC issuer, equal to the edge's origin. */
  issuer: v.string(),
  clientId: v.string(),
  version: v.string(),
  /** The edge's clock. */
  now: timestamp,
  /** Oldest first; absent where the certificate is of somebody else's CA, and from older edges. */
  authorities: v.optional(v.pipe(v.array(EdgeAuthority), v.maxLength(8))),
})

/** `GET /v1/session`: who the bearer of the token is. `DELETE /v1/session` ends the session. */
export const SessionResponse = v.object({
  identity: v.object({
    issuer: v.string(),
    subject: v.string(),
    email: v.string(),
    groups: v.array(v.string()),
  }),
  session: v.object({
    id: v.string(),
    createdAt: timestamp,
    expiresAt: timestamp,
    /** How the person signed in: `browser` or `device`; older edges do not say, newer ones may know others. */
    kind: v.optional(v.string()),
    amr: v.optional(v.array(v.string())),
    acr: v.optional(v.string()),
    authTime: v.optional(timestamp),
  }),
  /** `operator`, `auditor`, `admin`; newer edges may know others. */
  roles: v.array(v.string()),
})

/** Every answer with a status of 400 and more. */
export const ErrorResponse = v.object({
  error: v.object({
    code: v.string(),
    message: v.string(),
    hint: v.string(),
    details: v.optional(v.record(v.string(), v.unknown())),
  }),
})

export type EdgeAuthority = v.InferOutput<typeof EdgeAuthority>
export type EdgeResponse = v.InferOutput<typeof EdgeResponse>
export type SessionResponse = v.InferOutput<typeof SessionResponse>
export type ErrorResponse = v.InferOutput<typeof ErrorResponse>
