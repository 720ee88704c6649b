import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { CONTROL_PATH, CONTROL_SUBPROTOCOL, EdgeMessage } from './connector-control.ts'
import { ALPN_DATA, ALPN_FLOW, FRAME, MAX_CONTROL_BYTES, MAX_PAYLOAD_BYTES } from './frames.ts'

const text = readFileSync(new URL('../../../../docs/protocol.md', import.meta.url), 'utf8')

test('docs/protocol.md lists every frame with its number, and no other', () => {
  const rows = [...text.matchAll(/^\| (\w+) \| `0x([0-9a-f]{2})` \|/gm)]
  const documented = Object.fromEntries(rows.map(([, name, type]) => [name, Number.parseInt(type!, 16)]))
  assert.deepEqual(documented, FRAME)
})

test('docs/protocol.md lists every message of the control connection', () => {
  const types = EdgeMessage.options.map((option) => option.entries.type.literal)
  const rows = [...text.matchAll(/^\| `(\w+)` \| (connector|edge) \|/gm)].map(([, name]) => name)
  assert.deepEqual(rows.sort(), ['attach', 'target', ...types].sort())
})

test('docs/protocol.md has the names and limits of the code', () => {
  for (const name of [ALPN_FLOW, ALPN_DATA, CONTROL_SUBPROTOCOL, CONTROL_PATH])
    assert.ok(text.includes(name), name)
  for (const limit of [MAX_CONTROL_BYTES, MAX_PAYLOAD_BYTES]) {
    assert.ok(text.includes(limit.toLocaleString('en-US')), String(limit))
  }
})
