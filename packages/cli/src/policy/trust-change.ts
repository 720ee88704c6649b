import { PosternError } from '@postern/shared/errors'
import type { Policy, Rule, SubjectRule, TrustedClientCa } from '@postern/shared/policy'
import { formatSubjectRule } from '@postern/shared/subject-text'

/** What is to become of the CAs of others that a service trusts, and of whom it admits by their certificates. The rest of
 *  its policy stays as it is. */
export interface TrustChange {
  /** In place of one of this name, which keeps its list of revoked certificates. */
  trust: readonly TrustedClientCa[]
  /** Lists of revoked certificates, in PEM, by the name of the CA. */
  crls: ReadonlyMap<string, string>
  /** Names. */
  distrust: readonly string[]
  admit: readonly SubjectRule[]
  dismiss: readonly SubjectRule[]
}

/** @throws USAGE_INVALID it names something that is not there, or leaves a rule without its CA */
export function changeTrust(policy: Policy, change: TrustChange): Policy {
  const trustedClientCas = changeCas(policy.trustedClientCas ?? [], change)
  const allow = admit(dismiss(policy.allow, change.dismiss), change.admit)
  for (const { subjects = [] } of [...allow, ...policy.deny]) requireCas(subjects, trustedClientCas)
  const { trustedClientCas: _, ...rest } = policy
  return { ...rest, allow, ...(trustedClientCas.length > 0 ? { trustedClientCas } : {}) }
}

function changeCas(
  before: readonly TrustedClientCa[],
  { trust, crls, distrust }: TrustChange,
): TrustedClientCa[] {
  const cas = new Map(before.map((ca) => [ca.name, ca]))
  for (const name of distrust) {
    if (!cas.delete(name)) throw unknown(`a CA ${JSON.stringify(name)}`)
  }
  for (const ca of trust) cas.set(ca.name, { ...cas.get(ca.name), ...ca })
  for (const [name, crl] of crls) {
    const ca = cas.get(name)
    if (!ca) throw unknown(`a CA ${JSON.stringify(name)} for this list of revoked certificates`)
    cas.set(name, { ...ca, crl })
  }
  return [...cas.values()]
}

function dismiss(rules: readonly Rule[], subjects: readonly SubjectRule[]): readonly Rule[] {
  const gone = new Set(subjects.map(formatSubjectRule))
  const there = new Set(rules.flatMap((rule) => (rule.subjects ?? []).map(formatSubjectRule)))
  for (const text of gone) {
    if (!there.has(text)) throw unknown(`a subject ${text}`)
  }
  return rules.flatMap((rule) => {
    if (!rule.subjects) return [rule]
    const kept = rule.subjects.filter((subject) => !gone.has(formatSubjectRule(subject)))
    return kept.length > 0 ? [{ ...rule, subjects: kept }] : []
  })
}

/** In a rule that has no name and no condition: what those say is not meant for who is named here. */
function admit(rules: readonly Rule[], subjects: readonly SubjectRule[]): readonly Rule[] {
  if (subjects.length === 0) return rules
  const plain = rules.find((rule) => rule.subjects && Object.keys(rule).length === 1)
  const all = new Map([...(plain?.subjects ?? []), ...subjects].map((one) => [formatSubjectRule(one), one]))
  const rule: Rule = { subjects: [...all.values()] }
  return plain ? rules.map((one) => (one === plain ? rule : one)) : [...rules, rule]
}

function requireCas(subjects: readonly SubjectRule[], cas: readonly TrustedClientCa[]): void {
  for (const subject of subjects) {
    if (cas.some(({ name }) => name === subject.ca)) continue
    throw new PosternError(
      'USAGE_INVALID',
      `${formatSubjectRule(subject)} names a CA that the service does not trust`,
      {
        hint: 'name the CA with --trusted-client-ca NAME=FILE, or take the subject out with --remove-subject',
      },
    )
  }
}

function unknown(what: string): PosternError {
  return new PosternError('USAGE_INVALID', `the service does not have ${what}`, {
    hint: 'see what it has: postern service show LABEL',
  })
}
