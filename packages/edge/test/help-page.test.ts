import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { COMMANDS, PAGE_FILE, renderPage } from './help-page.ts'

test('docs/cli/postern-edge.md says what --help says', async () => {
  const page = await renderPage()
  assert.equal(readFileSync(PAGE_FILE, 'utf8'), page, 'write it again: node packages/edge/test/help-page.ts')
  assert.equal(page.match(/^Examples:/gm)?.length, COMMANDS.length, 'every command has examples')
})
