import assert from 'node:assert/strict'
import { chownSync, mkdtempSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { after, test } from 'node:test'
import { requireOwner } from './on-host.ts'

const folder = mkdtempSync(path.join(tmpdir(), 'postern-on-host-'))
after(() => rmSync(folder, { recursive: true }))

test('who is not the user of data_dir changes nothing there, unless it is root', async () => {
  chownSync(folder, 65_534, 65_534)
  assert.equal(statSync(folder).uid, 65_534)
  for (const user of [65_534, 0]) await requireOwner(folder, user)
  await assert.rejects(requireOwner(folder, 1_000), {
    code: 'USAGE_INVALID',
    message: /belongs to another user/,
    hint: /as root, or .*sudo -u '#65534'/,
  })
  await assert.rejects(requireOwner(path.join(folder, 'none'), 0), { code: 'STATE_INVALID' })
})
