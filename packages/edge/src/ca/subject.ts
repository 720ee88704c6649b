import { PosternError } from '@postern/shared/errors'
import type { SubjectAttribute, SubjectString } from '@postern/shared/policy'
import { formatSubjectField } from '@postern/shared/subject-text'
import { DerReader } from './der-reader.ts'

/** The subject of a certificate that somebody else has signed, field by field, in the order in which it stands there.
 *  Everything that could make two subjects look alike is refused instead of being brought into one form: fields of
 *  several values, types and strings that nobody needs, control characters, other encodings than DER. */
export interface SubjectField {
  type: SubjectAttribute
  text: string
  string: SubjectString
}

const MAX_SUBJECT_BYTES = 1_024
const MAX_FIELDS = 16
const MAX_TEXT_CHARS = 128
/** Of the whole subject as people read it: it stands where an address of 320 may. */
const MAX_RENDERED_CHARS = 240

const ATTRIBUTES: Readonly<Record<string, SubjectAttribute>> = {
  '550403': 'CN',
  '550404': 'SN',
  '550405': 'serialNumber',
  '550406': 'C',
  '550407': 'L',
  '550408': 'ST',
  '55040a': 'O',
  '55040b': 'OU',
  '55040c': 'title',
  '55042a': 'GN',
  '2a864886f70d010901': 'emailAddress',
  '0992268993f22c640101': 'UID',
  '0992268993f22c640119': 'DC',
}
const STRINGS: Readonly<Record<number, SubjectString>> = { 12: 'utf8', 19: 'printable', 22: 'ia5' }
const LETTERS: Readonly<Record<SubjectString, RegExp>> = {
  utf8: /^[^\p{C}\p{Zl}\p{Zp}]+$/u,
  printable: /^[A-Za-z0-9 '()+,./:=?-]+$/,
  ia5: /^[\x20-\x7e]+$/,
}

/** @param certificate DER
 *  @throws CERTIFICATE_REFUSED says what is odd about it */
export function readSubject(certificate: Uint8Array): SubjectField[] {
  const whole = new DerReader(certificate, () => odd('cannot be read'))
  const toBeSigned = whole.enter(0x30).enter(0x30)
  toBeSigned.skipIf(0xa0) // version
  toBeSigned.take(0x02) // serial
  for (const _ of ['algorithm', 'issuer', 'validity']) toBeSigned.take(0x30)
  const subject = toBeSigned.enter(0x30)
  if (subject.length > MAX_SUBJECT_BYTES) throw odd('is too long')
  const fields: SubjectField[] = []
  while (!subject.isAtEnd) fields.push(readField(subject.enter(0x31)))
  if (fields.length === 0) throw odd('is empty')
  if (fields.length > MAX_FIELDS) throw odd('has too many fields')
  if (renderSubject(fields).length > MAX_RENDERED_CHARS) throw odd('is too long')
  return fields
}

function readField(set: DerReader): SubjectField {
  const pair = set.enter(0x30)
  if (!set.isAtEnd) throw odd('has a field of several values')
  const type = ATTRIBUTES[pair.take(0x06).toString('hex')]
  if (!type) throw odd('has a field of a type that no rule can name')
  const { tag, content } = pair.next()
  const string = STRINGS[tag]
  if (!string || !pair.isAtEnd) throw odd('has a text of a kind that no rule can name')
  const text = decode(content)
  if (text.length > MAX_TEXT_CHARS || !LETTERS[string].test(text)) {
    throw odd('has a text that is too long, empty, or of letters that it may not have')
  }
  return { type, text, string }
}

/** The subject for people. */
export function renderSubject(fields: readonly SubjectField[]): string {
  return fields.map(formatSubjectField).join(',')
}

function decode(content: Uint8Array): string {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(content)
  } catch {
    throw odd('has a text that is not what it says it is')
  }
}

function odd(what: string): PosternError {
  return new PosternError('CERTIFICATE_REFUSED', `the subject of the certificate ${what}`)
}
