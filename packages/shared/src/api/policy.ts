import * as v from 'valibot'
import { DEFAULT_STRINGS, SUBJECT_STRINGS, type SubjectAttribute, WEEKDAYS } from '../policy.ts'
import { timestamp } from './fields.ts'

/** The policy documents: one with the defaults for all services (`defaults`), and one for each service. Texts are
 *  read again, and brought into the one form that is compared, by the edge's `policy/read-policy.ts`. */

const MAX_ENTRIES = 10_000
const text = (maxLength: number) => v.pipe(v.string(), v.minLength(1), v.maxLength(maxLength))
const list = <T extends v.GenericSchema>(entry: T, max = MAX_ENTRIES) =>
  v.pipe(v.array(entry), v.minLength(1), v.maxLength(max))
const milliseconds = v.pipe(v.number(), v.integer(), v.minValue(1_000), v.maxValue(366 * 86_400_000))
const clockTime = (pattern: RegExp) => v.pipe(v.string(), v.regex(pattern, 'must be a time like 08:30'))

export const Hours = v.strictObject({
  days: list(v.picklist(WEEKDAYS), 7),
  from: clockTime(/^([01]\d|2[0-3]):[0-5]\d$/),
  to: clockTime(/^(([01]\d|2[0-3]):[0-5]\d|24:00)$/),
  timeZone: text(64),
})

export const Conditions = v.strictObject({
  sourceNetworks: v.optional(list(text(64))),
  hours: v.optional(list(Hours, 100)),
  amr: v.optional(list(text(64), 20)),
  acr: v.optional(list(text(200), 20)),
  maxLoginAgeMs: v.optional(milliseconds),
  sessionKinds: v.optional(list(v.picklist(['browser', 'device']), 2)),
})

export const SubjectRule = v.strictObject({
  ca: text(32),
  fields: list(
    v.strictObject({
      type: v.picklist(Object.keys(DEFAULT_STRINGS) as SubjectAttribute[]),
      equals: v.optional(text(128)),
      matches: v.optional(text(128)),
      string: v.optional(v.picklist(SUBJECT_STRINGS)),
    }),
    16,
  ),
})

export const TrustedClientCa = v.strictObject({
  name: text(32),
  certificate: text(16_384),
  crl: v.optional(text(262_144)),
})

export const Rule = v.strictObject({
  name: v.optional(v.pipe(text(100), v.regex(/^[^\p{C}\p{Zl}\p{Zp}]+$/u, 'has control characters'))),
  emailAddresses: v.optional(list(text(320))),
  emailDomains: v.optional(list(text(253))),
  groups: v.optional(list(text(128))),
  providers: v.optional(list(text(2_048), 20)),
  anyAuthenticated: v.optional(v.literal(true)),
  workloads: v.optional(list(text(64))),
  subjects: v.optional(list(SubjectRule, 1_000)),
  when: v.optional(Conditions),
})

export const FlowLimits = v.strictObject({
  maxFlowLengthMs: v.optional(milliseconds),
  maxFlowsPerIdentity: v.optional(v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(1_000_000))),
})

export const Policy = v.strictObject({
  allow: v.optional(v.pipe(v.array(Rule), v.maxLength(1_000)), []),
  deny: v.optional(v.pipe(v.array(Rule), v.maxLength(1_000)), []),
  require: v.optional(Conditions, {}),
  limits: v.optional(FlowLimits, {}),
  trustedClientCas: v.optional(list(TrustedClientCa, 16)),
})

/** `GET /v1/policy`: the defaults for all services. Needs an administrator or auditor; `GET /v1/services/:ref/policy`
 *  also the owner of the service. */
export const PolicyResponse = v.object({
  policy: Policy,
  revision: v.number(),
  /** When and by whom it was written last; left out for one that nobody wrote. */
  changedAt: v.optional(timestamp),
  changedBy: v.optional(v.string()),
})

/** `PUT` of the same paths: replaces the document. Refused with REVISION_CONFLICT when it is no longer at this
 *  revision. */
export const ReplacePolicyRequest = v.strictObject({ policy: Policy, revision: v.number() })

export type PolicyResponse = v.InferOutput<typeof PolicyResponse>
export type ReplacePolicyRequest = v.InferInput<typeof ReplacePolicyRequest>

/** `GET …/policy/history`: every revision, the newest first. */
export const PolicyHistoryResponse = v.object({ revisions: v.array(PolicyResponse) })

/** `POST /v1/policy/test`: what would be decided. For the owner of the service, administrators and auditors. What is
 *  left out is taken from the person's last login, or is not known. */
export const TestPolicyRequest = v.strictObject({
  /** Address of a person. */
  identity: v.optional(text(320)),
  /** In place of a person: a program with a certificate of its own. */
  workload: v.optional(text(64)),
  /** Label or full host. */
  service: text(253),
  sourceAddress: v.optional(text(64)),
  /** Moment to decide at; now when left out. */
  at: v.optional(timestamp),
  groups: v.optional(v.pipe(v.array(text(128)), v.maxLength(200))),
  provider: v.optional(text(2_048)),
  amr: v.optional(v.pipe(v.array(text(64)), v.maxLength(20))),
  acr: v.optional(text(200)),
  signedInAt: v.optional(timestamp),
  sessionKind: v.optional(v.picklist(['browser', 'device'])),
})

export const TestPolicyResponse = v.object({
  allowed: v.boolean(),
  rule: v.string(),
  /** What the person would hear; left out when allowed. */
  code: v.optional(v.string()),
  /** When it is decided again at the latest. */
  until: v.optional(timestamp),
  limits: FlowLimits,
  explanation: v.array(v.string()),
})

/** `POST /v1/policy/diff`: what a document would change if it were applied now; nothing is changed. */
export const DiffPolicyRequest = v.strictObject({
  /** Label or full host; left out for the defaults. */
  service: v.optional(text(253)),
  policy: Policy,
})

export const DiffPolicyResponse = v.object({
  /** The revision that was compared with. */
  revision: v.number(),
  /** Live flows that would be ended. */
  flows: v.array(
    v.object({
      flowId: v.string(),
      email: v.string(),
      label: v.string(),
      clientAddress: v.string(),
      startedAt: timestamp,
      rule: v.string(),
    }),
  ),
  /** People seen in the last 30 days who are admitted now and would not be. */
  blocked: v.array(
    v.object({ email: v.string(), label: v.string(), lastSeenAt: timestamp, rule: v.string() }),
  ),
  /** People seen in the last 30 days, per service, who are not admitted now and would be. */
  admitted: v.number(),
  /** How many people and services were looked at. */
  people: v.number(),
  services: v.number(),
})

export type PolicyHistoryResponse = v.InferOutput<typeof PolicyHistoryResponse>
export type TestPolicyRequest = v.InferInput<typeof TestPolicyRequest>
export type TestPolicyResponse = v.InferOutput<typeof TestPolicyResponse>
export type DiffPolicyRequest = v.InferInput<typeof DiffPolicyRequest>
export type DiffPolicyResponse = v.InferOutput<typeof DiffPolicyResponse>
