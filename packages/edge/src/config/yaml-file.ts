import { type Document, isMap, isScalar, LineCounter, type Node, parseDocument } from 'yaml'

/** A parsed YAML file that knows on which line each key stands. */
export interface YamlFile {
  content: unknown
  problems: { line: number; message: string }[]
  /** Line of the key at this path, or of the nearest section around it. Starts at 1. */
  lineOf(path: readonly string[]): number
}

/** YAML 1.2, one document. Duplicate keys, tags and aliases are refused: none of them is needed, and each has
 *  hidden a setting from somebody before. */
export function readYaml(text: string): YamlFile {
  const counter = new LineCounter()
  const document = parseDocument(text, {
    lineCounter: counter,
    prettyErrors: false,
    uniqueKeys: true,
    logLevel: 'error',
  })
  const problems = [...document.errors, ...document.warnings].map((error) => ({
    line: counter.linePos(error.pos[0]).line,
    message: error.code === 'DUPLICATE_KEY' ? 'this key is written twice' : lowerFirst(error.message),
  }))
  const lineOf = (path: readonly string[]) => counter.linePos(offsetOf(document, path)).line
  return { content: contentOf(document, problems), problems, lineOf }
}

function contentOf(document: Document, problems: YamlFile['problems']): unknown {
  if (problems.length > 0) return undefined
  try {
    return document.toJS({ maxAliasCount: 0 })
  } catch {
    problems.push({ line: 1, message: 'aliases (*name) are not accepted, write the value again' })
    return undefined
  }
}

function offsetOf(document: Document, path: readonly string[]): number {
  let node: unknown = document.contents
  let offset = (node as Node | null)?.range?.[0] ?? 0
  for (const name of path) {
    if (!isMap(node)) break
    const pair = node.items.find(({ key }) => isScalar(key) && String(key.value) === name)
    if (!pair) break
    offset = (pair.key as Node).range?.[0] ?? offset
    node = pair.value
  }
  return offset
}

function lowerFirst(message: string): string {
  return message.slice(0, 1).toLowerCase() + message.slice(1)
}
