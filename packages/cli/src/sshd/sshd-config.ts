import { existsSync, globSync, readFileSync } from 'node:fs'
import path from 'node:path'
import { PosternError } from '@postern/shared/errors'

/** What stands in sshd's configuration files, as far as a drop-in has to know: what they include, and which lines
 *  would contradict it. What they mean is asked of sshd itself, see effective-config.ts. */

export interface Directive {
  /** Lower case. */
  keyword: string
  values: string[]
  /** Counts for some connections only. */
  isInMatch: boolean
  file: string
  line: number
}

/** Relative includes start here, wherever the file itself lies (sshd_config(5)). */
const INCLUDE_BASE = '/etc/ssh'
const MAX_DEPTH = 16
const MAX_FILES = 256
const DROP_IN_NAME = '00-postern.conf'

/** What only one party can set: sshd takes the first value of each. */
const EXCLUSIVE: ReadonlySet<string> = new Set([
  'trustedusercakeys',
  'authorizedprincipalsfile',
  'authorizedprincipalscommand',
  'revokedkeys',
])

/** @param file named in the directives, not read */
export function parseDirectives(text: string, file: string): Directive[] {
  const directives: Directive[] = []
  let isInMatch = false
  for (const [index, raw] of text.split('\n').entries()) {
    const found = /^\s*([A-Za-z0-9]+)(?:\s*=\s*|\s+)(.*)$/.exec(raw.replace(/\r$/, ''))
    if (!found) continue
    const keyword = found[1]!.toLowerCase()
    if (keyword === 'match') isInMatch = true
    directives.push({ keyword, values: splitValues(found[2]!), isInMatch, file, line: index + 1 })
  }
  return directives
}

/** The main file and everything that it includes, in sshd's order.
 *  @throws SSHD_SETUP_FAILED when a file cannot be read */
export function readDirectives(configFile: string): Directive[] {
  const seen: string[] = []
  const read = (file: string, isInMatch: boolean, depth: number): Directive[] => {
    seen.push(file)
    if (depth > MAX_DEPTH || seen.length > MAX_FILES) {
      throw new PosternError('SSHD_SETUP_FAILED', `${configFile} includes too many files`)
    }
    return parseDirectives(readConfig(file), file).flatMap((directive) => {
      const here = { ...directive, isInMatch: directive.isInMatch || isInMatch }
      if (directive.keyword !== 'include') return [here]
      const files = directive.values.flatMap((pattern) => globSync(resolvePattern(pattern)).sort())
      return [here, ...files.flatMap((included) => read(included, here.isInMatch, depth + 1))]
    })
  }
  return read(configFile, false, 0)
}

/** The file that an `Include` of the global part would read.
 *  @returns undefined when there is none: then the main file needs a line of its own */
export function findDropInFile(configFile: string, text: string): string | undefined {
  for (const { keyword, values, isInMatch } of parseDirectives(text, configFile)) {
    if (keyword !== 'include' || isInMatch) continue
    for (const pattern of values.map(resolvePattern)) {
      const folder = path.dirname(pattern)
      const file = path.join(folder, DROP_IN_NAME)
      if (!/[*?[]/.test(folder) && existsSync(folder) && path.matchesGlob(file, pattern)) return file
    }
  }
  return undefined
}

/** The main file with the drop-in included. At the very top: there no `Match` swallows the line, and sshd takes the
 *  first value of each keyword. */
export function includeAtTop(text: string, dropInFile: string): string {
  return `${includeLine(dropInFile)}\n${text}`
}

/** Takes that line out again, whatever else was changed since. */
export function removeInclude(text: string, dropInFile: string): string {
  return text
    .split('\n')
    .filter((line) => line !== includeLine(dropInFile))
    .join('\n')
}

/** Two parties that each name CAs, principals or revoked keys cannot both be right: what sshd reads first counts,
 *  and the other's certificates would be accepted or refused by the wrong list.
 *  @throws SSHD_SETUP_FAILED naming the line */
export function refuseConflicts(directives: readonly Directive[]): void {
  const conflict = directives.find(
    ({ keyword, values }) => EXCLUSIVE.has(keyword) && values[0]?.toLowerCase() !== 'none',
  )
  if (!conflict) return
  throw new PosternError(
    'SSHD_SETUP_FAILED',
    `${conflict.file} line ${conflict.line} sets ${conflict.keyword} already: nothing was changed`,
    {
      hint: 'sshd takes one list only; add the lines of --dry-run to yours by hand, or take that line out first',
    },
  )
}

/** @throws SSHD_SETUP_FAILED */
export function readConfig(file: string): string {
  try {
    return readFileSync(file, 'utf8')
  } catch (cause) {
    throw new PosternError('SSHD_SETUP_FAILED', `cannot read ${file}: ${(cause as Error).message}`, {
      cause,
      hint: 'run it as root, or name the file with --sshd-config',
    })
  }
}

function includeLine(dropInFile: string): string {
  return `Include "${dropInFile}"`
}

function resolvePattern(pattern: string): string {
  return path.resolve(INCLUDE_BASE, pattern)
}

function splitValues(text: string): string[] {
  const values = [...text.matchAll(/"([^"]*)"|(#.*)|([^\s"]+)/g)]
  const comment = values.findIndex((match) => match[2] !== undefined)
  return values.slice(0, comment === -1 ? undefined : comment).map((match) => match[1] ?? match[3]!)
}
