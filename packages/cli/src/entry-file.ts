import { type ErrorCode, PosternError, toPosternError } from '@postern/shared/errors'
import { suggest } from '@postern/shared/misspelling'
import { type Document, isMap, isNode, isScalar, isSeq, LineCounter, parseDocument } from 'yaml'

/** YAML files that list what a command is to run, an entry each. A bad entry is named with its line and leaves the
 *  others as they are: what it means for them is for the command to say. */

export interface Problem {
  /** From 1. */
  line: number
  error: PosternError
}

export interface Entry {
  line: number
  values: Readonly<Record<string, Value>>
}

type Value = string | number | boolean | readonly string[]

export interface Entries<T> {
  entries: T[]
  problems: Problem[]
}

/** What a key of an entry holds; with `?` it may be left out. */
type Kind = 'text' | 'texts' | 'place' | 'flag' | 'text?' | 'texts?' | 'place?' | 'flag?'
export type EntryShape = Readonly<Record<string, Kind>>

const MAX_FILE_CHARS = 1024 * 1024
const MAX_ENTRIES = 1_000
/** Of the problems of a file. */
const MAX_SHOWN = 20
const KINDS: Readonly<Record<string, { types: readonly string[]; words: string }>> = {
  text: { types: ['string'], words: 'text' },
  place: { types: ['string', 'number'], words: 'text or a number' },
  flag: { types: ['boolean'], words: 'true or false' },
  texts: { types: ['object'], words: 'a list of texts' },
}

/** Reads a file and makes of each entry what the command runs. Whatever is wrong with an entry leaves the others.
 *  @param list the one key of the file
 *  @param code of whatever is wrong with it as a list
 *  @param read throws what is wrong with one entry
 *  @param compare tells what is wrong with entries beside each other */
export function parseEntries<T extends { line: number }>(
  text: string,
  file: {
    list: string
    shape: EntryShape
    code: ErrorCode
    read: (entry: Entry) => T
    compare: (entries: readonly T[]) => Problem[]
  },
): Entries<T> {
  const found = readEntries(text, file)
  const problems = [...found.problems]
  const entries: T[] = []
  for (const entry of found.entries) {
    try {
      entries.push(file.read(entry))
    } catch (caught) {
      problems.push({ line: entry.line, error: toPosternError(caught, 'INTERNAL', String(caught)) })
    }
  }
  problems.push(...file.compare(entries))
  const bad = new Set(problems.map(({ line }) => line))
  return {
    entries: entries.filter(({ line }) => !bad.has(line)),
    problems: problems.sort((one, other) => one.line - other.line),
  }
}

function readEntries(
  text: string,
  { list, shape, code }: { list: string; shape: EntryShape; code: ErrorCode },
): Entries<Entry> {
  const problems: Problem[] = []
  const lines = new LineCounter()
  const tell = (offset: number, message: string) => {
    problems.push({ line: lines.linePos(offset).line || 1, error: new PosternError(code, message) })
  }
  if (text.length > MAX_FILE_CHARS) {
    tell(0, 'the file is larger than 1 MiB')
    return { entries: [], problems }
  }
  const document = parseDocument(text, { uniqueKeys: true, logLevel: 'error', lineCounter: lines })
  for (const { pos, message } of [...document.errors, ...document.warnings]) {
    tell(pos[0], message.split('\n', 1)[0]!.replace(/ at line \d+, column \d+:?$/, ''))
  }
  if (problems.length > 0) return { entries: [], problems }
  const entries: Entry[] = []
  for (const node of findItems(document, list, tell)) {
    const before = problems.length
    const values = readValues(node, document, shape, tell)
    if (problems.length === before) entries.push({ line: lines.linePos(startOf(node)).line, values })
  }
  return { entries, problems }
}

type Tell = (offset: number, message: string) => void

function findItems(document: Document, list: string, tell: Tell): unknown[] {
  const { contents } = document
  const other = isMap(contents) ? contents.items.find(({ key }) => nameOf(key) !== list) : undefined
  const items = isMap(contents) ? contents.get(list, true) : undefined
  if (other) tell(startOf(other.key), `${JSON.stringify(nameOf(other.key))} is not a key of this file`)
  if (!isSeq(items) || items.items.length === 0) {
    tell(
      startOf(items ?? contents),
      `the file has to list them: "${list}:" and then an entry each, with "- "`,
    )
    return []
  }
  if (items.items.length > MAX_ENTRIES) {
    tell(startOf(items), `it has more than ${MAX_ENTRIES} entries`)
    return []
  }
  return items.items
}

function readValues(node: unknown, document: Document, shape: EntryShape, tell: Tell): Entry['values'] {
  const values: Record<string, Value> = {}
  if (!isMap(node)) {
    tell(startOf(node), 'an entry is a section with keys, and aliases are not accepted')
    return values
  }
  for (const { key, value } of node.items) {
    const name = nameOf(key)
    const kind = Object.hasOwn(shape, name) ? KINDS[shape[name]!.replace('?', '')] : undefined
    const read = isScalar(value) ? value.toJS(document) : readTexts(value)
    if (!kind)
      tell(
        startOf(key),
        `${JSON.stringify(name)} is not a key of an entry${suggest(name, Object.keys(shape))}`,
      )
    else if (!kind.types.includes(typeof read)) tell(startOf(key), `${name} must be ${kind.words}`)
    else values[name] = read
  }
  for (const [name, kind] of Object.entries(shape)) {
    if (!kind.endsWith('?') && !node.has(name)) tell(startOf(node), `the entry has no ${name}`)
  }
  return values
}

/** @returns undefined for anything but a list of texts */
function readTexts(node: unknown): string[] | undefined {
  if (!isSeq(node)) return undefined
  const texts = node.items.map((item) => (isScalar(item) ? item.value : undefined))
  return texts.every((text) => typeof text === 'string') ? texts : undefined
}

function nameOf(key: unknown): string {
  return String(isScalar(key) ? key.value : key)
}

function startOf(node: unknown): number {
  return (isNode(node) && node.range?.[0]) || 0
}

/** All of them in one failure, for a command that does not begin. */
export function explainProblems(file: string, problems: readonly Problem[]): PosternError {
  const [first] = problems
  const { code } = first!.error
  const shown = problems.slice(0, MAX_SHOWN)
  const hint = [...new Set(shown.map(({ error }) => error.hint))].join('; ')
  const details = {
    problems: problems.map(({ line, error }) => ({ line, code: error.code, message: error.message })),
  }
  if (problems.length === 1) {
    return new PosternError(code, `${file}, line ${first!.line}: ${first!.error.message}`, { hint, details })
  }
  const lines = shown.map(({ line, error }) => `line ${line}: ${error.message}`)
  return new PosternError(code, `${file} has ${problems.length} problems`, {
    hint,
    details: { ...details, lines },
  })
}
