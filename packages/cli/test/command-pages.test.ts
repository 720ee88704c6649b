import assert from 'node:assert/strict'
import { readdirSync, readFileSync } from 'node:fs'
import path from 'node:path'
import { test } from 'node:test'
import { PAGES_FOLDER, renderPages } from './command-pages.ts'

test('docs/cli has a page for every command, as the command is', () => {
  const pages = renderPages()
  const written = readdirSync(PAGES_FOLDER).filter((name) => name !== 'postern-edge.md') // the edge's own test has it
  assert.deepEqual(written.sort(), [...pages.keys()].sort())
  for (const [name, text] of pages) {
    const page = readFileSync(path.join(PAGES_FOLDER, name), 'utf8')
    assert.equal(page, text, `write it again: node packages/cli/test/command-pages.ts`)
  }
})

test('every command has examples', () => {
  for (const [name, text] of renderPages()) {
    if (name !== 'README.md') assert.match(text, /```sh\n# .+\n\w/, name)
  }
})
