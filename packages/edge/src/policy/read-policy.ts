import { parseEmailAddress, parseEmailDomain } from '@postern/shared/email'
import { PosternError } from '@postern/shared/errors'
import type { Conditions, Policy, Rule } from '@postern/shared/policy'
import { parseWorkloadName } from '@postern/shared/workload-name'
import { parseNetwork } from '../limits/network.ts'

/** Reads a document as it came over the wire: every text in the one form that is compared. One bad entry refuses
 *  the whole document and all bad ones are named, with the place they stand at: nothing is dropped.
 *  @throws POLICY_INVALID */
export function readPolicy(input: Policy): Policy {
  const problems: string[] = []
  const note = (where: string, what: string) => problems.push(`${where}: ${what}`)
  const policy: Policy = {
    allow: input.allow.map((rule, index) => readRule(rule, `allow[${index}]`, note)),
    deny: input.deny.map((rule, index) => readRule(rule, `deny[${index}]`, note)),
    require: readConditions(input.require, 'require', note),
    limits: input.limits,
  }
  for (const [index, { when }] of input.deny.entries()) {
    if (when?.maxLoginAgeMs !== undefined) {
      note(`deny[${index}].when`, 'max_login_age would turn away who has just signed in; use require')
    }
  }
  if (problems.length > 0) throw invalid(problems)
  return policy
}

type Note = (where: string, what: string) => void

function readRule(rule: Rule, where: string, note: Note): Rule {
  const read = <T extends string>(name: keyof Rule, parse: (text: string) => T) =>
    readAll(rule[name] as readonly string[] | undefined, parse, `${where}.${name}`, note)
  const { name, when, ...who } = rule
  if (Object.keys(who).length === 0) {
    note(
      where,
      'names nobody: give email_addresses, email_domains, groups, providers, any_authenticated or workloads',
    )
  }
  if (who.workloads && Object.keys(who).length > 1) {
    note(where, 'names people and workloads: nobody is both, write two rules')
  }
  return withoutUndefined({
    ...rule,
    emailAddresses: read('emailAddresses', parseEmailAddress),
    emailDomains: read('emailDomains', parseEmailDomain),
    groups: read('groups', parsePrintable),
    providers: read('providers', parseIssuer),
    workloads: read('workloads', parseWorkloadName),
    when: when && readConditions(when, `${where}.when`, note),
  })
}

function readConditions(conditions: Conditions, where: string, note: Note): Conditions {
  for (const [index, { timeZone, from, to }] of (conditions.hours ?? []).entries()) {
    if (!isTimeZone(timeZone)) {
      note(`${where}.hours[${index}]`, `${JSON.stringify(timeZone)} is not a time zone like Europe/Berlin`)
    }
    if (from === to)
      note(`${where}.hours[${index}]`, 'from and to are the same: a whole day is 00:00 to 24:00')
  }
  return withoutUndefined({
    ...conditions,
    sourceNetworks: readAll(conditions.sourceNetworks, parseNetwork, `${where}.sourceNetworks`, note),
    amr: readAll(conditions.amr, parsePrintable, `${where}.amr`, note),
    acr: readAll(conditions.acr, parsePrintable, `${where}.acr`, note),
  })
}

function readAll<T extends string>(
  texts: readonly string[] | undefined,
  parse: (text: string) => T,
  where: string,
  note: Note,
): T[] | undefined {
  if (!texts) return undefined
  const entries = new Set<T>()
  for (const text of texts) {
    try {
      entries.add(parse(text))
    } catch (error) {
      note(where, (error as Error).message)
    }
  }
  return [...entries].sort()
}

function parseIssuer(text: string): string {
  if (!URL.canParse(text)) throw new Error(`${JSON.stringify(text)} is not the address of a provider`)
  return text
}

function parsePrintable(text: string): string {
  if (/[\p{C}\p{Zl}\p{Zp}]/u.test(text)) throw new Error(`${JSON.stringify(text)} has control characters`)
  return text
}

function isTimeZone(name: string): boolean {
  try {
    new Intl.DateTimeFormat('en-US', { timeZone: name })
    return true
  } catch {
    return false
  }
}

function withoutUndefined<T extends object>(value: T): T {
  return Object.fromEntries(Object.entries(value).filter(([, entry]) => entry !== undefined)) as T
}

function invalid(problems: readonly string[]): PosternError {
  const shown = problems.slice(0, 10)
  const more = problems.length > shown.length ? `, and ${problems.length - shown.length} more` : ''
  return new PosternError('POLICY_INVALID', `the policy is not valid: ${shown.join('; ')}${more}`, {
    details: { problems: problems.slice(0, 100) },
  })
}
