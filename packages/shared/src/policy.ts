/** Who may open a flow, and under which conditions: the document that operators write for a service, and
 *  administrators for all services. What it means is in the edge's `policy/evaluate.ts`. */

export const WEEKDAYS = ['mon', 'tue', 'wed', 'thu', 'fri', 'sat', 'sun'] as const
export type Weekday = (typeof WEEKDAYS)[number]

/** A window of the week. `to` before `from` reaches into the next day; `00:00` to `24:00` is the whole day. */
export interface Hours {
  days: readonly Weekday[]
  /** `08:00` */
  from: string
  /** `18:00`, the first minute that is outside. */
  to: string
  /** `Europe/Berlin` */
  timeZone: string
}

export type SessionKind = 'browser' | 'device'

/** Every member that is given must hold. */
export interface Conditions {
  /** One of these contains the client's address: `10.0.0.0/8`, `2001:db8::/32`, or a single address. */
  sourceNetworks?: readonly string[] | undefined
  /** It is inside one of these. */
  hours?: readonly Hours[] | undefined
  /** The login used all of these methods (RFC 8176: `mfa`, `hwk`, …). */
  amr?: readonly string[] | undefined
  /** The login has one of these classes. */
  acr?: readonly string[] | undefined
  /** The person signed in at this edge at most this long ago. */
  maxLoginAgeMs?: number | undefined
  /** How the login was made. */
  sessionKinds?: readonly SessionKind[] | undefined
}

/** Every member that is given must hold; of the values of one member, one must. A rule names at least one. */
export interface Rule {
  /** For people and the audit log. */
  name?: string | undefined
  emailAddresses?: readonly string[] | undefined
  emailDomains?: readonly string[] | undefined
  groups?: readonly string[] | undefined
  /** Issuers of the company's providers. */
  providers?: readonly string[] | undefined
  /** Anybody who has signed in. Programs only where it denies: no rule for people admits one. */
  anyAuthenticated?: true | undefined
  /** Programs with a certificate of their own, by name. Not in a rule that names people. */
  workloads?: readonly string[] | undefined
  when?: Conditions | undefined
}

export interface FlowLimits {
  /** A flow ends this long after it began. */
  maxFlowLengthMs?: number | undefined
  /** Flows of one person at once; of the limits that apply the smallest counts. */
  maxFlowsPerIdentity?: number | undefined
}

export interface Policy {
  /** Beside the service's own list: whom any of these matches. */
  allow: readonly Rule[]
  /** Whom any of these matches is out, whatever admits them. */
  deny: readonly Rule[]
  /** What must hold for everybody. */
  require: Conditions
  limits: FlowLimits
}

/** Admits nobody and forbids nothing: what a service's own list says is all there is. */
export const EMPTY_POLICY: Policy = { allow: [], deny: [], require: {}, limits: {} }
