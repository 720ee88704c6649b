import { formatExactDuration, parseDuration } from '@postern/shared/duration'
import { PosternError } from '@postern/shared/errors'
import { suggest } from '@postern/shared/misspelling'
import type { Policy } from '@postern/shared/policy'
import { parseAllDocuments, stringify } from 'yaml'

/** Policies as people write them: YAML with snake_case keys and durations as text; several documents in one file.
 *  Loaded only by the commands that need it. */
export interface PolicyDocument {
  /** Label or full host; undefined for the defaults of all services. */
  service: string | undefined
  /** The revision that was edited; undefined applies to whatever is there. */
  revision: number | undefined
  policy: Policy
}

const MAX_FILE_CHARS = 1024 * 1024

/** Key in the file → member of the document. Members whose name ends in `Ms` are durations in the file. */
const RULE = {
  name: 'name',
  email_addresses: 'emailAddresses',
  email_domains: 'emailDomains',
  groups: 'groups',
  providers: 'providers',
  any_authenticated: 'anyAuthenticated',
  workloads: 'workloads',
}
const CONDITIONS = {
  source_networks: 'sourceNetworks',
  amr: 'amr',
  acr: 'acr',
  max_login_age: 'maxLoginAgeMs',
  session_kinds: 'sessionKinds',
}
const HOURS = { days: 'days', from: 'from', to: 'to', time_zone: 'timeZone' }
const LIMITS = { max_flow_length: 'maxFlowLengthMs', max_flows_per_identity: 'maxFlowsPerIdentity' }

/** What may stand in a section: keys that are carried over, lists of sections, and sections. */
interface Shape {
  /** Member of the document, where the key is called otherwise. */
  member?: string
  keys: Readonly<Record<string, string>>
  lists?: Readonly<Record<string, Shape>>
  sections?: Readonly<Record<string, Shape>>
}
const CONDITIONS_SHAPE: Shape = { keys: CONDITIONS, lists: { hours: { keys: HOURS } } }
const SUBJECT_SHAPE: Shape = {
  keys: { ca: 'ca' },
  lists: { fields: { keys: { type: 'type', equals: 'equals', matches: 'matches', string: 'string' } } },
}
const RULE_SHAPE: Shape = {
  keys: RULE,
  lists: { subjects: SUBJECT_SHAPE },
  sections: { when: CONDITIONS_SHAPE },
}
const TRUSTED_CA_SHAPE: Shape = {
  member: 'trustedClientCas',
  keys: { name: 'name', certificate: 'certificate', crl: 'crl' },
}
const POLICY_SHAPE: Shape = {
  keys: {},
  lists: { allow: RULE_SHAPE, deny: RULE_SHAPE, trusted_client_cas: TRUSTED_CA_SHAPE },
  sections: { require: CONDITIONS_SHAPE, limits: { keys: LIMITS } },
}

/** Reads a file of one or more documents. What the values mean is the edge's to check; that nothing in the file is
 *  overlooked is checked here.
 *  @throws POLICY_INVALID names every problem with its place */
export function parsePolicyFile(text: string, file: string): PolicyDocument[] {
  const problems: string[] = []
  if (text.length > MAX_FILE_CHARS) throw invalid(file, ['it is larger than 1 MiB'])
  const parsed = parseAllDocuments(text, { uniqueKeys: true, logLevel: 'error' })
  const documents = Array.isArray(parsed) ? parsed : []
  for (const { errors, warnings } of documents) {
    problems.push(...[...errors, ...warnings].map(({ message }) => message.split('\n', 1)[0]!))
  }
  if (problems.length > 0) throw invalid(file, problems)
  const contents = documents.map((document) => {
    try {
      return document.toJS({ maxAliasCount: 0 })
    } catch {
      throw invalid(file, ['aliases (*name) are not accepted, write the value again'])
    }
  })
  const read = contents.map((content, index) => readDocument(content, `document ${index + 1}`, problems))
  if (documents.length === 0) problems.push('it is empty')
  if (problems.length > 0) throw invalid(file, problems)
  refuseTwice(read, file)
  return read
}

function readDocument(content: unknown, where: string, problems: string[]): PolicyDocument {
  const { service, defaults, revision, ...rest } = isSection(content) ? content : {}
  if (!isSection(content)) problems.push(`${where} is not a section with keys`)
  else if ((service === undefined) === (defaults === undefined)) {
    problems.push(`${where} must say for whom it is: service: LABEL, or defaults: true`)
  }
  if (service !== undefined && typeof service !== 'string') problems.push(`${where}: service must be text`)
  if (defaults !== undefined && defaults !== true) problems.push(`${where}: defaults can only be true`)
  if (revision !== undefined && !(Number.isSafeInteger(revision) && (revision as number) >= 0)) {
    problems.push(`${where}: revision must be a whole number`)
  }
  const policy = readSection(rest, POLICY_SHAPE, where, problems)
  return {
    service: service as string | undefined,
    revision: revision as number | undefined,
    policy: { allow: [], deny: [], require: {}, limits: {}, ...policy },
  }
}

function readSection(
  section: unknown,
  { keys, lists = {}, sections = {} }: Shape,
  where: string,
  problems: string[],
): Record<string, unknown> {
  if (!isSection(section)) {
    problems.push(`${where} must be a section with keys`)
    return {}
  }
  const result: Record<string, unknown> = {}
  for (const [key, value] of Object.entries(section)) {
    const place = `${where}: ${key}`
    if (Object.hasOwn(keys, key)) result[keys[key]!] = readValue(keys[key]!, value, place, problems)
    else if (Object.hasOwn(sections, key)) result[key] = readSection(value, sections[key]!, place, problems)
    else if (!Object.hasOwn(lists, key)) {
      const known = [keys, sections, lists].flatMap((one) => Object.keys(one))
      problems.push(`${place} is not a key of a policy${suggest(key, known)}`)
    } else if (!Array.isArray(value)) problems.push(`${place} must be a list`)
    else {
      result[lists[key]!.member ?? key] = value.map((entry, index) =>
        readSection(entry, lists[key]!, `${place}[${index}]`, problems),
      )
    }
  }
  return result
}

function readValue(member: string, value: unknown, place: string, problems: string[]): unknown {
  if (value === null || value === undefined) problems.push(`${place} is empty: leave it out or give a value`)
  if (!member.endsWith('Ms')) return value
  try {
    return parseDuration(String(value))
  } catch {
    problems.push(`${place} must be a duration like 8h, not ${JSON.stringify(value)}`)
    return undefined
  }
}

/** The same document as text that `parsePolicyFile` reads back to it. */
export function formatPolicyFile({ service, revision, policy }: PolicyDocument): string {
  return stringify({
    ...(service === undefined ? { defaults: true } : { service }),
    ...(revision === undefined ? {} : { revision }),
    ...writeSection(policy as unknown as Record<string, unknown>, POLICY_SHAPE),
  })
}

function writeSection(
  section: Record<string, unknown>,
  { keys, lists = {}, sections = {} }: Shape,
): Record<string, unknown> {
  const result: Record<string, unknown> = {}
  for (const [key, member] of Object.entries(keys)) {
    const value = section[member]
    if (value !== undefined) result[key] = member.endsWith('Ms') ? formatExactDuration(Number(value)) : value
  }
  for (const [key, shape] of Object.entries(sections)) {
    const inner = section[key] as Record<string, unknown> | undefined
    if (inner && Object.keys(inner).length > 0) result[key] = writeSection(inner, shape)
  }
  for (const [key, shape] of Object.entries(lists)) {
    const entries = section[shape.member ?? key] as Record<string, unknown>[] | undefined
    if (entries) result[key] = entries.map((entry) => writeSection(entry, shape))
  }
  return result
}

function refuseTwice(documents: readonly PolicyDocument[], file: string): void {
  const seen = new Set<string | undefined>()
  for (const { service } of documents) {
    if (seen.has(service)) throw invalid(file, [`${service ?? 'the defaults'} stands there twice`])
    seen.add(service)
  }
}

function isSection(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function invalid(file: string, problems: readonly string[]): PosternError {
  return new PosternError('POLICY_INVALID', `${file}: ${problems.slice(0, 10).join('; ')}`, {
    details: { problems: problems.slice(0, 100) },
  })
}
