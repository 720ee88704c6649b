import assert from 'node:assert/strict'
import { existsSync, readFileSync } from 'node:fs'
import path from 'node:path'
import { describe, it } from 'node:test'
import { fileURLToPath } from 'node:url'

/** docs/threat-model.md claims much: each claim names the test that shows it, and that test is there. */

const ROOT = fileURLToPath(new URL('../../..', import.meta.url))
const PAGE = readFileSync(path.join(ROOT, 'docs/threat-model.md'), 'utf8')

/** `x.test.ts` is an end-to-end test in `test/`. */
function namedTests(text: string): string[] {
  const names = [...text.matchAll(/`([^`]*\.test\.ts)`/g)].map((match) => match[1]!)
  return names.map((name) => (name.includes('/') ? name : `test/${name}`))
}

/** The rows of every table whose last column is `shown by`. */
function claims(): string[] {
  const tables = PAGE.split(/\n\n+/).filter((block) => /^\|.*\| shown by \|$/m.test(block))
  return tables.flatMap((table) => table.split('\n').slice(2)).filter((row) => row.startsWith('|'))
}

describe('docs/threat-model.md', () => {
  it('names tests that exist', () => {
    const missing = namedTests(PAGE).filter((file) => !existsSync(path.join(ROOT, file)))
    assert.deepEqual(missing, [])
  })

  it('has a test for each of its claims', () => {
    assert.ok(claims().length >= 25)
    for (const row of claims()) {
      const shown = row.split('|').at(-2) ?? ''
      assert.ok(namedTests(shown).length > 0, row)
    }
  })

  it('says what a stolen laptop, token, connector, edge disk and edge process give', () => {
    for (const thing of ['laptop', 'token', 'connector certificate', "edge's disk", 'edge process'])
      assert.match(PAGE, new RegExp(`^\\| \\*\\*.*${thing}.*\\*\\*`, 'm'), thing)
  })
})
