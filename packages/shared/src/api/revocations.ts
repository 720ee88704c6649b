import * as v from 'valibot'
import { timestamp } from './fields.ts'

/** What takes back what was granted, and who is live: flows, sessions, locks. */

const email = v.pipe(v.string(), v.minLength(1), v.maxLength(320))
const id = v.pipe(v.string(), v.minLength(1), v.maxLength(64))
const reason = v.pipe(
  v.string(),
  v.minLength(1),
  v.maxLength(200),
  v.regex(/^[^\p{C}\p{Zl}\p{Zp}]+$/u, 'has control characters'),
)

/** `POST /v1/revocations`. An administrator may revoke all of it; the owner of a service single certificates,
 *  connectors and flows of it, and all of it at once; everybody their own sessions and flows. */
export const RevocationRequest = v.union(
  [
    v.strictObject({
      /** Of ssh in decimal, of TLS in hex. */
      certificateSerial: v.pipe(v.string(), v.regex(/^[0-9A-Fa-f]{1,64}$/)),
    }),
    /** A person with everything of theirs. */
    v.strictObject({ email }),
    v.strictObject({ sessionId: id }),
    v.strictObject({ connectorId: id }),
    /** Label or full host: every certificate, connector and flow of it. It stays, and admits whom it admits. */
    v.strictObject({ service: v.pipe(v.string(), v.maxLength(253)) }),
    v.strictObject({ flowId: id }),
  ],
  'names none of certificateSerial, email, sessionId, connectorId, service, flowId',
)

export const REVOCATION_POINTS = [
  'sessions',
  'tlsCertificates',
  'sshCertificates',
  'connectors',
  'flows',
] as const
export type RevocationPoint = (typeof REVOCATION_POINTS)[number]

/** What the edges that share the store with this one have said in time. */
export const OtherEdges = v.object({
  told: v.number(),
  /** That have carried it out. The others do when they hear of it, or refuse. */
  done: v.number(),
})

/** What was taken back by this call; what was revoked before is not counted again. */
export const RevocationResponse = v.object({
  sessions: v.number(),
  tlsCertificates: v.number(),
  sshCertificates: v.number(),
  connectors: v.number(),
  flows: v.number(),
  /** Servers refuse ssh certificates once they have this version of the list. */
  krlVersion: v.number(),
  /** When each point was done, by the edge's clock; those that had nothing to do are left out. */
  at: v.object({
    sessions: v.optional(timestamp),
    tlsCertificates: v.optional(timestamp),
    sshCertificates: v.optional(timestamp),
    connectors: v.optional(timestamp),
    flows: v.optional(timestamp),
  }),
  /** Left out where there are none. Their flows and connectors are not among the numbers above. */
  otherEdges: v.optional(OtherEdges),
})

/** `POST /v1/locks`: an administrator locks an address; in place of an earlier lock of it. */
export const LockRequest = v.strictObject({ email, until: v.optional(timestamp), reason })
/** Like a revocation: flows and ssh certificates end now; sessions and TLS certificates are refused while it lasts. */
export const LockResponse = RevocationResponse

/** `DELETE /v1/locks/:email` */
export const UnlockResponse = v.object({ email: v.string() })

/** `GET /v1/locks`, for auditors. */
export const ListLocksResponse = v.object({
  locks: v.array(
    v.object({
      email: v.string(),
      until: v.optional(timestamp),
      reason: v.string(),
      lockedAt: timestamp,
      lockedBy: v.string(),
    }),
  ),
})

export const Flow = v.object({
  id: v.string(),
  email: v.string(),
  label: v.string(),
  clientAddress: v.string(),
  startedAt: timestamp,
  sessionId: v.string(),
  certificateSerial: v.string(),
  /** Left out while no connector is found yet. */
  connectorId: v.optional(v.string()),
  /** It is decided again then, at the latest. */
  decideAgainAt: v.optional(timestamp),
})

/** `GET /v1/flows`: all for administrators and auditors, those of their services for owners, their own for people. */
export const ListFlowsResponse = v.object({ flows: v.array(Flow) })
/** `GET /v1/flows/:id` */
export const FlowResponse = v.object({ flow: Flow })

export const LiveSession = v.object({
  id: v.string(),
  email: v.string(),
  kind: v.picklist(['browser', 'device']),
  clientAddress: v.string(),
  createdAt: timestamp,
  expiresAt: timestamp,
  flows: v.number(),
})

/** `GET /v1/sessions`: one's own, or with `?email=` for administrators and auditors somebody's. */
export const ListSessionsResponse = v.object({ sessions: v.array(LiveSession) })

export type OtherEdges = v.InferOutput<typeof OtherEdges>
export type RevocationRequest = v.InferInput<typeof RevocationRequest>
export type RevocationResponse = v.InferOutput<typeof RevocationResponse>
export type LockRequest = v.InferInput<typeof LockRequest>
export type LockResponse = v.InferOutput<typeof LockResponse>
export type ListLocksResponse = v.InferOutput<typeof ListLocksResponse>
export type Flow = v.InferOutput<typeof Flow>
export type ListFlowsResponse = v.InferOutput<typeof ListFlowsResponse>
export type FlowResponse = v.InferOutput<typeof FlowResponse>
export type LiveSession = v.InferOutput<typeof LiveSession>
export type ListSessionsResponse = v.InferOutput<typeof ListSessionsResponse>
