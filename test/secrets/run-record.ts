import { appendFileSync, globSync, mkdirSync, mkdtempSync, readFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'

/** One folder for a whole test run: what every program said, and every secret that became known meanwhile. All test
 *  processes append to it; the run reads it at its end. */

/** What a program wrote to one of its streams. */
export interface Output {
  source: OutputSource
  text: string
}

export interface OutputSource {
  /** File of the test that started it. */
  test: string
  command: readonly string[]
  stream: 'stdout' | 'stderr'
}

/** What must not stand in any output, and what it is. */
export interface Secret {
  kind: string
  value: string
}

/** Bulk data comes through the stdout of clients: what a program says of itself stands in its first part. */
const MAX_KEPT_BYTES = { stdout: 2 * 2 ** 20, stderr: 64 * 2 ** 20 }

let outputs = 0

export function makeRunFolder(): string {
  const folder = mkdtempSync(path.join(tmpdir(), 'postern-output-')) // mode 0700
  mkdirSync(outputFolder(folder))
  return folder
}

/** @returns a function that keeps what comes next; the first line of the file says where it is from */
export function keepOutput(folder: string, source: OutputSource): (chunk: Uint8Array | string) => void {
  const file = path.join(outputFolder(folder), `${process.pid}-${++outputs}`)
  let left = MAX_KEPT_BYTES[source.stream]
  appendFileSync(file, `${JSON.stringify(source)}\n`)
  return (chunk) => {
    if (left <= 0) return
    appendFileSync(file, chunk.length > left ? chunk.slice(0, left) : chunk)
    left -= chunk.length
  }
}

/** Lines this short are written whole, also when several processes write. */
export function noteSecret(folder: string, secret: Secret): void {
  appendFileSync(secretsFile(folder), `${JSON.stringify(secret)}\n`)
}

export function* readOutputs(folder: string): Generator<Output> {
  for (const file of globSync(path.join(outputFolder(folder), '*')).sort()) {
    // one byte, one character: what a program pipes through need not be text
    const text = readFileSync(file, 'latin1')
    const end = text.indexOf('\n')
    // the first line is looked at as well: arguments are no place for a secret
    yield { source: JSON.parse(text.slice(0, end)) as OutputSource, text }
  }
}

export function readSecrets(folder: string): Secret[] {
  let text = ''
  try {
    text = readFileSync(secretsFile(folder), 'utf8')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error
  }
  const lines = [...new Set(text.split('\n'))].filter((line) => line !== '')
  return lines.map((line) => JSON.parse(line) as Secret)
}

function outputFolder(folder: string): string {
  return path.join(folder, 'output')
}

function secretsFile(folder: string): string {
  return path.join(folder, 'secrets')
}
