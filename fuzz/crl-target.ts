import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { PosternError } from '@postern/shared/errors'
import { type Authority, createAuthorities } from '../packages/edge/src/ca/authorities.ts'
import { checkCrl, crlToPem, signCrl } from '../packages/edge/src/ca/crl.ts'
import { mutateBytes } from './mutate.ts'
import type { Random } from './random.ts'
import type { Target } from './target.ts'

/** A copy of the list of revoked certificates, from wherever it was published: what was altered is never believed. */

const NOW = Date.UTC(2026, 0, 1)
const TIMES = { now: NOW, backdateMs: 60_000, lifetimeMs: 3_600_000 }
let made: Promise<{ authority: Authority; lists: Buffer[] }> | undefined

async function make() {
  const folder = mkdtempSync(path.join(tmpdir(), 'postern-crl-'))
  const { client } = await createAuthorities(folder, NOW)
  rmSync(folder, { recursive: true })
  const serials = ['0a', 'ff'.repeat(16), '40'.repeat(16)].map((serial) => ({ serial, revokedAt: NOW }))
  const lists = await Promise.all([0, 1, 3].map((count) => signCrl(client, serials.slice(0, count), TIMES)))
  return { authority: client, lists }
}

async function check(random: Random): Promise<void> {
  made ??= make()
  const { authority, lists } = await made
  const der = random.of(lists)
  const original = random.oneIn(3) ? Buffer.from(crlToPem(der)) : der
  const bytes = Buffer.from(mutateBytes(original, random))
  const checked = await checkCrl(bytes, [authority], NOW).catch((error: unknown) => {
    assert.ok(error instanceof PosternError, String(error))
    assert.equal(error.code, 'CRL_INVALID')
    return undefined
  })
  // edits may undo each other, hit the lines around PEM, or come behind the end
  if (checked) assert.equal(checked.entries, [0, 1, 3][lists.indexOf(der)])
}

export const CRL_TARGET: Target = { name: 'crl', cases: 4_000, run: check }
