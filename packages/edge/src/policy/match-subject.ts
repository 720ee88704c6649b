import { DEFAULT_STRINGS, type SubjectFieldRule, type SubjectRule } from '@postern/shared/policy'
import type { SubjectField } from '../ca/subject.ts'

/** Whether a subject is exactly what a rule says: the same fields, in the same order, and no other. */
export function matchesSubject(rule: SubjectRule, ca: string, subject: readonly SubjectField[]): boolean {
  return (
    rule.ca === ca &&
    rule.fields.length === subject.length &&
    rule.fields.every((field, index) => matchesField(field, subject[index]!))
  )
}

function matchesField(rule: SubjectFieldRule, { type, text, string }: SubjectField): boolean {
  if (rule.type !== type || (rule.string ?? DEFAULT_STRINGS[rule.type]) !== string) return false
  return rule.equals === undefined ? matchesPattern(rule.matches ?? '', text) : rule.equals === text
}

/** Of the whole text; `*` stands for one or more letters, digits, dots, underscores and hyphens. Two of them at most, so
 *  that no text takes long. */
export function matchesPattern(pattern: string, text: string): boolean {
  const parts = pattern.split('*').map((part) => part.replace(/[\\^$.+?()[\]{}|/]/g, '\\$&'))
  return new RegExp(`^${parts.join('[A-Za-z0-9._-]+')}$`, 'u').test(text)
}

export const MAX_STARS = 2
