import { closeSync, openSync, writeSync } from 'node:fs'
import { styleText } from 'node:util'
import type { PosternError } from '@postern/shared/errors'

/** What people read goes to stderr, data to stdout: `client tls` carries somebody's bytes there. */

/** Everything that came from elsewhere (names, addresses, messages of an edge) passes here before it reaches a
 *  terminal, which obeys control characters: they appear as `\u001b`. Marks that turn the direction of writing
 *  around count too. */
export function printable(text: string): string {
  return text.replace(
    /[\p{C}\p{Zl}\p{Zp}]/gu,
    (character) => `\\u${character.codePointAt(0)!.toString(16).padStart(4, '0')}`,
  )
}

/** One message for people. Written at once, so that nothing is lost when the process ends right after. */
export function tell(message: string): void {
  writeMessage(`${style('bold', 'postern:')} ${message}\n`)
}

/** A line that belongs to the message before it. */
export function tellMore(line: string): void {
  writeMessage(`  ${line}\n`)
}

export function tellError(error: PosternError): void {
  writeMessage(`${style('red', 'postern:')} ${printable(error.message)} (${error.code})\n`)
  const { flowId, lines } = error.details ?? {}
  if (Array.isArray(lines)) for (const line of lines) tellMore(printable(String(line)))
  if (error.hint) tellMore(printable(error.hint))
  if (typeof flowId === 'string') tellMore(`more: postern explain ${printable(flowId)}`)
}

/** A table for people on stdout; cells are made printable. */
export async function printTable(header: readonly string[], rows: readonly string[][]): Promise<void> {
  const lines = [header.map((name) => name.toUpperCase()), ...rows.map((row) => row.map(printable))]
  const widths = header.map((_, column) => Math.max(...lines.map((line) => line[column]?.length ?? 0)))
  const text = lines.map((line, index) => {
    const cells = line.map((cell, column) =>
      column === line.length - 1 ? cell : cell.padEnd(widths[column]!),
    )
    return index === 0 ? style('bold', cells.join('  '), process.stdout) : cells.join('  ')
  })
  await print(`${text.join('\n')}\n`)
}

/** One JSON value and a new line on stdout. */
export async function printJson(value: unknown, indent = 2): Promise<void> {
  await print(`${JSON.stringify(value, null, indent)}\n`)
}

export function print(text: string): Promise<void> {
  return new Promise((resolve, reject) => {
    process.stdout.write(text, (error) => (error ? reject(error) : resolve()))
  })
}

/** Is there a person: stderr is a terminal, or the process has one (ssh keeps stderr for itself sometimes). */
export function hasTerminal(): boolean {
  if (process.stderr.isTTY) return true
  if (process.platform === 'win32') return false
  try {
    closeSync(openSync('/dev/tty', 'r+'))
    return true
  } catch {
    return false
  }
}

function style(format: 'bold' | 'red', text: string, stream: NodeJS.WriteStream = process.stderr): string {
  return styleText(format, text, { stream })
}

function writeMessage(text: string): void {
  try {
    writeSync(2, text)
  } catch {
    // a closed or full stderr must not end a flow
  }
}
