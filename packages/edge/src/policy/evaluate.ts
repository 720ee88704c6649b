import { domainOf } from '@postern/shared/email'
import type { ErrorCode } from '@postern/shared/errors'
import type { AllowList, Identity } from '@postern/shared/identity'
import type { Conditions, FlowLimits, Policy, Rule, TrustedClientCa } from '@postern/shared/policy'
import type { WorkloadName } from '@postern/shared/workload-name'
import { type ForeignCrl, readForeignCrl } from '../ca/foreign-crl.ts'
import type { SubjectField } from '../ca/subject.ts'
import { CONDITION_CODES, checkConditions, earlier, type PolicyContext, type Verdict } from './conditions.ts'
import { matchesSubject } from './match-subject.ts'

/** What policy reads of a person. */
export type Person = Pick<Identity, 'email' | 'issuer' | 'groups'>

/** A program with a certificate of its own. */
export interface Workload {
  workload: WorkloadName
}

/** Whoever holds a certificate of a CA that one service trusts. */
export interface Holder {
  /** As the document of the service has it: one that is replaced under the same name is another. */
  ca: TrustedClientCa
  subject: readonly SubjectField[]
  /** Of the certificate: lower-case hex, without zeros in front. */
  serial: string
}

/** Who asks. */
export type PolicySubject = Person | Workload | Holder

/** Everybody but people: who they are stands in their certificate, and nothing else is known of them. */
export type Program = Exclude<PolicySubject, Person>

/** What policy reads of a service: the list that its connector was started with, and its document. */
export interface PolicyService {
  allow: AllowList
  policy: Policy
}

/** Of what sort the rule is: few, so that decisions can be counted by it. */
export type RuleKind =
  | 'email_address'
  | 'email_domain'
  | 'any_authenticated'
  | 'allow_rule'
  | 'deny_rule'
  | 'condition'
  | 'requirement'
  | 'flow_limit'
  | 'none'

export interface Admission {
  allowed: true
  /** What admitted: `email domain mycorp.com`, `rule "contractors"`, … For auditors, never for the person. */
  rule: string
  ruleKind: RuleKind
  /** Decide again then, at the latest: a window of time ends, a login becomes too old. Epoch milliseconds. */
  until?: number | undefined
  limits: FlowLimits
}

export interface Denial {
  allowed: false
  rule: string
  ruleKind: RuleKind
  /** What the person hears. Anything but ACCESS_DENIED only where everything else admits them. */
  code: ErrorCode
  /** Decide again then: a denial that is bound to a time may end. */
  condition?: keyof Conditions | undefined
}

/** Allow or deny, with the rule that decided. */
export type Decision = Admission | Denial

/** Decides for one identity at one moment. Pure.
 *
 *  Default deny; a deny rule wins over everything, then what is required of everybody, then the service's list and
 *  the allow rules. What cannot be known never helps: an allow rule or a requirement that asks for it fails, a deny
 *  rule that asks for it denies. Lists and whatever else admits people admits no program: that takes a rule with its
 *  name. */
export function evaluate(
  defaults: Policy,
  identity: PolicySubject,
  service: PolicyService,
  context: PolicyContext,
  now: number,
): Decision {
  const denied = findDenial([...defaults.deny, ...service.policy.deny], identity, context, now)
  if (denied) return deny('deny_rule', `deny ${describeRule(denied)}`)

  const admission = findAdmission(defaults, identity, service, context, now)
  if (!admission.allowed) return admission

  let { until } = admission
  for (const [whose, conditions] of [
    ['all services', defaults.require],
    ['this service', service.policy.require],
  ] as const) {
    const verdict = checkConditions(conditions, context, now)
    if (!verdict.holds) return unmet(verdict, 'requirement', `required for ${whose}`)
    until = earlier(until, verdict.until)
  }
  // a deny rule may begin to match with time: that of a window that is not open yet is found by asking again
  if (hasTimedDenial(defaults, service, identity)) until = earlier(until, nextMinute(now))
  return { ...admission, until }
}

function findDenial(
  rules: readonly Rule[],
  identity: PolicySubject,
  context: PolicyContext,
  now: number,
): Rule | undefined {
  return rules.find((rule) => {
    if (!isAbout(rule, identity) && !isAboutEverybody(rule)) return false
    const verdict = checkConditions(rule.when ?? {}, context, now)
    return verdict.holds || verdict.isUnknown
  })
}

function findAdmission(
  defaults: Policy,
  identity: PolicySubject,
  { allow, policy }: PolicyService,
  context: PolicyContext,
  now: number,
): Decision {
  const limits = joinLimits(defaults.limits, policy.limits)
  const standing: Standing = 'ca' in identity ? standingOf(identity, policy, now) : {}
  if (standing.denied) return standing.denied
  const decision = findAdmitting(defaults, identity, { allow, policy }, context, now, limits)
  return decision.allowed ? { ...decision, until: earlier(decision.until, standing.until) } : decision
}

function findAdmitting(
  defaults: Policy,
  identity: PolicySubject,
  { allow, policy }: PolicyService,
  context: PolicyContext,
  now: number,
  limits: FlowLimits,
): Decision {
  const listed = isPerson(identity) ? findInList(allow, identity) : undefined
  if (listed) return { allowed: true, ...listed, limits }
  let unmetBy: Denial | undefined
  let best: Admission | undefined
  for (const rule of [...defaults.allow, ...policy.allow]) {
    if (!isAbout(rule, identity)) continue
    const verdict = checkConditions(rule.when ?? {}, context, now)
    const name = `allow ${describeRule(rule)}`
    if (!verdict.holds) unmetBy ??= unmet(verdict, 'condition', name)
    else if (!best || isLater(verdict.until, best.until)) {
      best = { allowed: true, rule: name, ruleKind: 'allow_rule', until: verdict.until, limits }
    }
  }
  return best ?? unmetBy ?? deny('none', 'no rule admits')
}

function deny(ruleKind: RuleKind, rule: string): Denial {
  return { allowed: false, code: 'ACCESS_DENIED', rule, ruleKind }
}

function unmet(verdict: Verdict & { holds: false }, ruleKind: RuleKind, where: string): Denial {
  const { condition, isUnknown } = verdict
  const what = isUnknown ? `${condition} is not known` : `${condition} does not hold`
  return { allowed: false, code: CONDITION_CODES[condition], rule: `${where}: ${what}`, ruleKind, condition }
}

/** What of a list the person is, for auditors; undefined when they are not on it. Domains match exactly: a sub-domain
 *  is another domain. */
export function findInList(
  allow: AllowList,
  { email }: Pick<Identity, 'email'>,
): Pick<Admission, 'rule' | 'ruleKind'> | undefined {
  if (allow.emailAddresses.includes(email)) {
    return { ruleKind: 'email_address', rule: `email address ${email}` }
  }
  const domain = domainOf(email)
  if (allow.emailDomains.includes(domain)) return { ruleKind: 'email_domain', rule: `email domain ${domain}` }
  return allow.anyAuthenticated ? { ruleKind: 'any_authenticated', rule: 'any authenticated' } : undefined
}

export function isPerson(subject: PolicySubject): subject is Person {
  return 'email' in subject
}

function isAbout(rule: Rule, subject: PolicySubject): boolean {
  const named = (isPerson(subject) ? matchPerson(rule, subject) : matchProgram(rule, subject)).filter(
    (matches) => matches !== undefined,
  )
  return named.length > 0 && named.every(Boolean)
}

function matchPerson(rule: Rule, { email, issuer, groups }: Person): (boolean | undefined)[] {
  return [
    rule.anyAuthenticated,
    rule.emailAddresses && isIn(rule.emailAddresses, email),
    rule.emailDomains && isIn(rule.emailDomains, domainOf(email)),
    rule.groups && groups.some((group) => isIn(rule.groups!, group)),
    rule.providers && isIn(rule.providers, issuer),
    rule.workloads && false,
    rule.subjects && false,
  ]
}

function matchProgram(rule: Rule, program: Program): (boolean | undefined)[] {
  const { anyAuthenticated, emailAddresses, emailDomains, groups, providers, workloads, subjects } = rule
  const namesPeople = [anyAuthenticated, emailAddresses, emailDomains, groups, providers].some(Boolean)
  return [
    namesPeople ? false : undefined,
    workloads && 'workload' in program && isIn(workloads, program.workload),
    subjects &&
      'ca' in program &&
      subjects.some((subject) => matchesSubject(subject, program.ca.name, program.subject)),
  ]
}

/** What becomes of everybody of a CA, whatever the rules say. */
interface Standing {
  denied?: Denial
  /** When its list of revoked certificates is too old. */
  until?: number
}

function standingOf({ ca, serial }: Holder, { trustedClientCas = [] }: Policy, now: number): Standing {
  const trusted = trustedClientCas.find(
    ({ name, certificate }) => name === ca.name && certificate === ca.certificate,
  )
  if (!trusted) return { denied: deny('none', 'its CA is not trusted') }
  if (trusted.crl === undefined) return {}
  const refuse = (code: ErrorCode, rule: string): Standing => ({
    denied: { ...deny('requirement', `${rule} ${ca.name}`), code },
  })
  const { revoked, nextUpdate } = listOf(trusted, trusted.crl)
  if (now >= nextUpdate) return refuse('TRUSTED_CRL_EXPIRED', 'too old: the list of revoked certificates of')
  return revoked.has(serial) ? refuse('CERTIFICATE_REVOKED', 'revoked by') : { until: nextUpdate }
}

const lists = new WeakMap<TrustedClientCa, ForeignCrl>()

/** Read once for each document: it was verified before it was written. */
function listOf(ca: TrustedClientCa, crl: string): ForeignCrl {
  const list = lists.get(ca) ?? readForeignCrl(crl, ca.certificate)
  lists.set(ca, list)
  return list
}

/** A rule that denies everybody means programs, too. */
function isAboutEverybody({ name: _name, when: _when, anyAuthenticated, ...others }: Rule): boolean {
  return anyAuthenticated === true && Object.keys(others).length === 0
}

/** A list of this length is looked through as fast as it is looked up. */
const MAX_LOOKED_THROUGH = 16
const lookUps = new WeakMap<readonly string[], ReadonlySet<string>>()

/** Lists can be of a hundred thousand names, and stay in memory as long as the document they are of. */
function isIn(list: readonly string[], text: string): boolean {
  if (list.length <= MAX_LOOKED_THROUGH) return list.includes(text)
  const lookUp = lookUps.get(list) ?? new Set(list)
  lookUps.set(list, lookUp)
  return lookUp.has(text)
}

/** For auditors: `rule "contractors"`, or who it is about. */
export function describeRule(rule: Rule): string {
  if (rule.name !== undefined) return `rule ${JSON.stringify(rule.name)}`
  const some = (list: readonly string[]) => list.slice(0, 100).join(', ')
  const parts = [
    rule.anyAuthenticated && 'anybody',
    rule.emailAddresses && `email ${some(rule.emailAddresses)}`,
    rule.emailDomains && `domain ${some(rule.emailDomains)}`,
    rule.groups && `group ${some(rule.groups)}`,
    rule.providers && `provider ${some(rule.providers)}`,
    rule.workloads && `workload ${some(rule.workloads)}`,
    rule.subjects && `certificates of ${some([...new Set(rule.subjects.map(({ ca }) => ca))])}`,
  ].filter(Boolean)
  return `rule for ${parts.join(' and ').slice(0, 200)}`
}

function joinLimits(a: FlowLimits, b: FlowLimits): FlowLimits {
  return {
    maxFlowLengthMs: earlier(a.maxFlowLengthMs, b.maxFlowLengthMs),
    maxFlowsPerIdentity: earlier(a.maxFlowsPerIdentity, b.maxFlowsPerIdentity),
  }
}

/** No end is later than any end. */
function isLater(a: number | undefined, b: number | undefined): boolean {
  return b !== undefined && (a === undefined || a > b)
}

function hasTimedDenial(defaults: Policy, { policy }: PolicyService, identity: PolicySubject): boolean {
  return [...defaults.deny, ...policy.deny].some(
    ({ when, ...rule }) => when?.hours !== undefined && (isAbout(rule, identity) || isAboutEverybody(rule)),
  )
}

function nextMinute(now: number): number {
  return now - (now % 60_000) + 60_000
}
