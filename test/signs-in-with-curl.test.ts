import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import path from 'node:path'
import { test } from 'node:test'
import { startEdge } from './support/edge-process.ts'
import { runPostern } from './support/postern.ts'
import { makeTempFolder } from './support/temp-folder.ts'

/** A person without a browser at the dev page: the form, the confirm page, the loopback. */
const CURL_BROWSER = `#!/bin/sh
set -eu
page() { curl -sSL --fail-with-body --cacert "$CA" -c "$JAR" -b "$JAR" "$@"; }
action() { sed -n 's/.*<form[^>]*action="\\([^"]*\\)".*/\\1/p' | head -n 1 | sed 's/&amp;/\\&/g'; }
form=$(page "$1")
echo "$form" | grep -c '<input[^>]*name="email"' | grep -qx 1
confirm=$(page --data-urlencode "email=$EMAIL" "$ORIGIN$(echo "$form" | action)")
echo "$confirm" | grep -q "$EMAIL"
page --data '' "$ORIGIN$(echo "$confirm" | action)" > "$JAR.last"
`

test('the dev identity page is a plain form that curl can fill in', async () => {
  await using edge = await startEdge()
  const folder = makeTempFolder('curl')
  const browser = path.join(folder, 'browser')
  writeFileSync(browser, CURL_BROWSER, { mode: 0o755 })
  const env = { CA: edge.caFile, JAR: path.join(folder, 'jar'), EMAIL: 'dev@mycorp.com', ORIGIN: edge.origin }
  const args = ['login', '--edge', edge.origin, '--ca-file', edge.caFile, '--browser', browser]
  const result = await runPostern(args, { home: makeTempFolder('home'), env })
  assert.equal(result.code, 0, result.stderr)
  assert.match(result.stderr, /signed in .* as dev@mycorp\.com/)
})
