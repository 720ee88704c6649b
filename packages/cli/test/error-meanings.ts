import { readFileSync, writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

/** `src/explain/meanings.ts`, written from docs/errors.md: `postern explain` says what the page says.
 *  `error-meanings.test.ts` compares; run this file to write it. */

export const MEANINGS_FILE: string = fileURLToPath(new URL('../src/explain/meanings.ts', import.meta.url))
const PAGE = fileURLToPath(new URL('../../../docs/errors.md', import.meta.url))

export function renderMeanings(): string {
  const sections = readFileSync(PAGE, 'utf8').split(/^### /m).slice(1)
  const entries = sections.map(readSection).sort((a, b) => (a.code < b.code ? -1 : 1))
  const lines = entries.map(
    ({ code, meaning, next }) =>
      `  ${code}: {\n    meaning: ${quote(meaning)},\n    next: ${quote(next)},\n  },`,
  )
  return [
    '// Written by packages/cli/test/error-meanings.ts from docs/errors.md.',
    "import type { ErrorCode } from '@postern/shared/errors'",
    '',
    'export const MEANINGS: Readonly<Record<ErrorCode, { meaning: string; next: string }>> = {',
    ...lines,
    '}',
    '',
  ].join('\n')
}

/** The paragraphs between the line of numbers and "What to do", and that one. */
function readSection(section: string): { code: string; meaning: string; next: string } {
  const [code = '', ...rest] = section.split('\n')
  const paragraphs = rest.join('\n').split(/\n#+ /, 1)[0]!.split('\n\n').map(toPlainText).filter(Boolean)
  const start = paragraphs.findIndex((paragraph) => paragraph.startsWith('What to do: '))
  return {
    code,
    meaning: paragraphs.slice(1, start).join(' '),
    next: paragraphs.slice(start).join(' ').slice('What to do: '.length),
  }
}

function toPlainText(markdown: string): string {
  return markdown
    .replaceAll(/\[([^\]]+)\]\([^)]+\)/g, '$1')
    .replaceAll(/\*\*|`/g, '')
    .replaceAll(/\s+/g, ' ')
    .trim()
}

/** As the formatter writes it. */
function quote(text: string): string {
  return text.includes("'") ? JSON.stringify(text) : `'${text.replaceAll('\\', '\\\\')}'`
}

if (process.argv[1] === fileURLToPath(import.meta.url)) writeFileSync(MEANINGS_FILE, renderMeanings())
