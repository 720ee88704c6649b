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
  /** Holders of certificates of `trustedClientCas`. Not in a rule that names others. */
  subjects?: readonly SubjectRule[] | undefined
  when?: Conditions | undefined
}

/** Exactly these fields, in this order. */
export interface SubjectRule {
  /** Name of a trusted CA of the same document. */
  ca: string
  fields: readonly SubjectFieldRule[]
}

export interface SubjectFieldRule {
  type: SubjectAttribute
  /** One of these two: the text, or a pattern of the whole of it in which `*` stands for a run of letters, digits and
   *  `._-`. */
  equals?: string | undefined
  matches?: string | undefined
  /** How the text is written in the certificate; what RFC 5280 wants of new ones when left out. */
  string?: SubjectString | undefined
}

export const SUBJECT_STRINGS = ['utf8', 'printable', 'ia5'] as const
export type SubjectString = (typeof SUBJECT_STRINGS)[number]

/** Fields that a subject may have, and how their text is written. */
export const DEFAULT_STRINGS = {
  CN: 'utf8',
  SN: 'utf8',
  GN: 'utf8',
  title: 'utf8',
  serialNumber: 'printable',
  C: 'printable',
  ST: 'utf8',
  L: 'utf8',
  O: 'utf8',
  OU: 'utf8',
  UID: 'utf8',
  DC: 'ia5',
  emailAddress: 'ia5',
} as const satisfies Record<string, SubjectString>
export type SubjectAttribute = keyof typeof DEFAULT_STRINGS

/** A CA of somebody else, whose certificates may be named in rules of this service and of no other. */
export interface TrustedClientCa {
  name: string
  /** PEM of the one certificate that signs the leaves. */
  certificate: string
  /** PEM of its list of revoked certificates. Once that is older than it says it may be, nobody of this CA is admitted. */
  crl?: string | undefined
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
  /** Of a service only. */
  trustedClientCas?: readonly TrustedClientCa[] | undefined
}

/** Admits nobody and forbids nothing: what a service's own list says is all there is. */
export const EMPTY_POLICY: Policy = { allow: [], deny: [], require: {}, limits: {} }
