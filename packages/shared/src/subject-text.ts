import { PosternError } from './errors.ts'
import {
  DEFAULT_STRINGS,
  SUBJECT_STRINGS,
  type SubjectAttribute,
  type SubjectFieldRule,
  type SubjectRule,
  type SubjectString,
} from './policy.ts'

/** The subject of a certificate as people read and write it: after RFC 4514 but in the order of the certificate, so that no
 *  two subjects look alike. `C=DE,O=Acme\2c Inc.,CN=sensor-7`; a kind of text that is not the usual one stands behind the
 *  type, as in `O:printable=Acme`. No `@` stands in it as such: nobody shall take it for an address. */
export function formatSubjectField({
  type,
  text,
  string,
}: {
  type: SubjectAttribute
  text: string
  string?: SubjectString | undefined
}): string {
  return `${formatType(type, string)}=${writeText(text)}`
}

/** A rule as `acme:C=DE,O=Acme,CN=sensor-*`: what the log says of whom it admits, with `*` in patterns. */
export function formatSubjectRule({ ca, fields }: SubjectRule): string {
  const parts = fields.map(({ type, string, equals, matches }) =>
    matches === undefined
      ? formatSubjectField({ type, text: equals ?? '', string })
      : `${formatType(type, string)}=${matches.split('*').map(writeText).join('*')}`,
  )
  return `${ca}:${parts.join(',')}`
}

const FORM = 'write it as in acme:C=DE,O=Acme,CN=sensor-*, field by field in the order of the certificate'
const MAX_RULE_CHARS = 2_048

/** @throws USAGE_INVALID says what is wrong with it */
export function parseSubjectRule(text: string): SubjectRule {
  const [, ca, fields] = /^(?:x509:)?([a-z0-9-]{1,32}):(.+)$/s.exec(text.slice(0, MAX_RULE_CHARS + 1)) ?? []
  if (ca === undefined || text.length > MAX_RULE_CHARS) throw invalid(text, 'it is not CA:FIELD=TEXT,…')
  return { ca, fields: fields!.split(',').map((field) => parseField(field.trimStart(), text)) }
}

function parseField(field: string, rule: string): SubjectFieldRule {
  const [, name, kind, value = ''] = /^([A-Za-z]+)(?::([a-z0-9]+))?=(.+)$/s.exec(field) ?? []
  if (name === undefined) throw invalid(rule, `${JSON.stringify(field)} is not FIELD=TEXT`)
  if (!Object.hasOwn(DEFAULT_STRINGS, name)) {
    throw invalid(rule, `${name} is none of ${Object.keys(DEFAULT_STRINGS).join(', ')}`)
  }
  const string = SUBJECT_STRINGS.find((one) => one === kind)
  if (kind !== undefined && !string) throw invalid(rule, `${kind} is none of ${SUBJECT_STRINGS.join(', ')}`)
  const text = readText(value, rule)
  const isPattern = value.includes('*')
  if (isPattern && text.split('*').length !== value.split('*').length) {
    throw invalid(rule, `${name} has a * that is meant as one beside one of a pattern`)
  }
  return {
    type: name as SubjectAttribute,
    ...(isPattern ? { matches: text } : { equals: text }),
    ...(string && string !== DEFAULT_STRINGS[name as SubjectAttribute] ? { string } : {}),
  }
}

function formatType(type: SubjectAttribute, string = DEFAULT_STRINGS[type] as SubjectString): string {
  return string === DEFAULT_STRINGS[type] ? type : `${type}:${string}`
}

function writeText(text: string): string {
  return text.replace(/[^\p{L}\p{N} ._-]|^ | $/gu, (character) =>
    [...Buffer.from(character)].map((byte) => `\\${byte.toString(16).padStart(2, '0')}`).join(''),
  )
}

function readText(text: string, rule: string): string {
  const plain = text.replace(/(?:\\[0-9a-fA-F]{2})+/g, (bytes) => {
    try {
      const read = Buffer.from(bytes.replaceAll('\\', ''), 'hex')
      return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(read).replaceAll('\\', '\\\\')
    } catch {
      throw invalid(rule, `${JSON.stringify(bytes)} is no text`)
    }
  })
  // what was written as \5c is doubled by now, and one alone was not written as a letter
  if (/(?<!\\)(?:\\\\)*\\(?!\\)/.test(plain)) {
    throw invalid(rule, 'behind \\ belong two hexadecimal digits: \\2c is a comma, \\5c is \\')
  }
  return plain.replaceAll('\\\\', '\\')
}

function invalid(rule: string, problem: string): PosternError {
  return new PosternError('USAGE_INVALID', `the subject ${JSON.stringify(rule.slice(0, 200))}: ${problem}`, {
    hint: FORM,
  })
}
