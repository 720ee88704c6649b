import { X509Certificate } from 'node:crypto'
import { parseEmailAddress, parseEmailDomain } from '@postern/shared/email'
import { PosternError } from '@postern/shared/errors'
import type { Conditions, Policy, Rule, SubjectFieldRule, TrustedClientCa } from '@postern/shared/policy'
import { parseWorkloadName } from '@postern/shared/workload-name'
import { readForeignCrl } from '../ca/foreign-crl.ts'
import { parseNetwork } from '../limits/network.ts'
import { MAX_STARS } from './match-subject.ts'

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
  const cas = readTrustedCas(input.trustedClientCas, note)
  for (const kind of ['allow', 'deny'] as const) {
    for (const [index, { subjects = [] }] of input[kind].entries()) {
      for (const { ca } of subjects) {
        if (cas?.some(({ name }) => name === ca)) continue
        note(`${kind}[${index}].subjects`, `${JSON.stringify(ca)} is no CA of trusted_client_cas`)
      }
    }
  }
  for (const [index, { when }] of input.deny.entries()) {
    if (when?.maxLoginAgeMs !== undefined) {
      note(`deny[${index}].when`, 'max_login_age would turn away who has just signed in; use require')
    }
  }
  if (problems.length > 0) throw invalid(problems)
  return cas ? { ...policy, trustedClientCas: cas } : policy
}

/** The document of all services: a CA of somebody else is for one.
 *  @throws POLICY_INVALID */
export function readDefaults(input: Policy): Policy {
  if (input.trustedClientCas)
    throw invalid(['trusted_client_cas: a CA is trusted for one service, not for all'])
  return readPolicy(input)
}

type Note = (where: string, what: string) => void

function readRule(rule: Rule, where: string, note: Note): Rule {
  const read = <T extends string>(name: keyof Rule, parse: (text: string) => T) =>
    readAll(rule[name] as readonly string[] | undefined, parse, `${where}.${name}`, note)
  const { name, when, ...who } = rule
  if (Object.keys(who).length === 0) {
    note(
      where,
      'names nobody: give email_addresses, email_domains, groups, providers, any_authenticated, workloads or subjects',
    )
  }
  if ((who.workloads || who.subjects) && Object.keys(who).length > 1) {
    note(
      where,
      'names people, workloads or subjects together: nobody is two of them, write one rule for each',
    )
  }
  for (const [index, { fields }] of (who.subjects ?? []).entries()) {
    for (const field of fields) readField(field, `${where}.subjects[${index}]`, note)
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

function readField({ type, equals, matches }: SubjectFieldRule, where: string, note: Note): void {
  if ((equals === undefined) === (matches === undefined)) {
    note(where, `${type} must have equals or matches, and not both`)
  }
  if (/[\p{C}\p{Zl}\p{Zp}]/u.test(equals ?? matches ?? '')) note(where, `${type} has control characters`)
  const stars = (matches ?? '*').split('*').length - 1
  if (stars < 1 || stars > MAX_STARS)
    note(where, `${type}: matches must have one * or two; use equals for a text`)
}

/** Names are short, because they stand before every subject; certificates are those that sign. */
function readTrustedCas(
  cas: readonly TrustedClientCa[] | undefined,
  note: Note,
): readonly TrustedClientCa[] | undefined {
  const keys = new Set<string>()
  const names = new Set<string>()
  return cas?.map(({ name, certificate, crl }, index) => {
    const where = `trustedClientCas[${index}]`
    if (!/^[a-z0-9](?:[a-z0-9-]{0,30}[a-z0-9])?$/.test(name)) {
      note(where, `the name ${JSON.stringify(name)} must be lower-case letters, digits and inner hyphens`)
    }
    const parsed = parseCertificate(certificate)
    if (!parsed) note(where, 'certificate must be one certificate in PEM')
    else if (!parsed.ca)
      note(where, 'certificate must be the one of the CA that signs, not one that it has signed')
    const key = parsed?.publicKey.export({ type: 'spki', format: 'der' }).toString('hex')
    if (names.has(name) || (key !== undefined && keys.has(key)))
      note(where, 'name and key must be there once')
    names.add(name)
    if (key !== undefined) keys.add(key)
    if (parsed?.ca && crl !== undefined) readCrl(crl, certificate, `${where}.crl`, note)
    return withoutUndefined({ name, certificate: parsed?.toString() ?? certificate, crl })
  })
}

/** One that is too old already would shut everybody out at once: a slip of the hand. */
function readCrl(crl: string, certificate: string, where: string, note: Note): void {
  try {
    const { nextUpdate } = readForeignCrl(crl, certificate)
    if (nextUpdate <= Date.now())
      note(where, `its successor was due at ${new Date(nextUpdate).toISOString()}`)
  } catch (error) {
    note(where, (error as Error).message)
  }
}

function parseCertificate(pem: string): X509Certificate | undefined {
  const blocks = pem.match(/-----BEGIN [^-]*-----/g) ?? []
  if (blocks.length !== 1 || blocks[0] !== '-----BEGIN CERTIFICATE-----') return undefined
  try {
    return new X509Certificate(pem)
  } catch {
    return undefined
  }
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
