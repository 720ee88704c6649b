import assert from 'node:assert/strict'
import { test } from 'node:test'
import { PosternError } from '@postern/shared/errors'
import type { AuditEvent } from './event.ts'
import { AuditReads } from './reads.ts'

const MINUTE_MS = 60_000
const ANN = {
  identity: { id: 'idn_1', email: 'ann@mycorp.com' },
  session: { id: 'ses_1' },
  clientAddress: '203.0.113.7:1',
  how: 'list' as const,
  query: { type: 'login.ok' },
}

test('reading is recorded at once, then counted, per session and kind', async () => {
  const events: AuditEvent[] = []
  let now = 0
  const record = async (event: AuditEvent) => void events.push(event)
  const reads = new AuditReads({ record }, () => now)
  const seen = () =>
    events.splice(0).map((event) => event.type === 'audit.read' && [event.how, event.count, event.since])
  await reads.note(ANN)
  assert.equal(events[0]?.type === 'audit.read' && events[0].query.type, 'login.ok')
  assert.deepEqual(seen(), [['list', 1, 0]])
  for (now = MINUTE_MS; now < 10 * MINUTE_MS; now += MINUTE_MS) await reads.note(ANN)
  assert.deepEqual(seen(), [])
  await reads.note({ ...ANN, how: 'export' })
  await reads.note({ ...ANN, session: { id: 'ses_2' } })
  assert.deepEqual(seen(), [
    ['export', 1, now],
    ['list', 1, now],
  ])
  await reads.note(ANN)
  assert.deepEqual(seen(), [['list', 10, MINUTE_MS]])
})

test('what cannot be recorded is not read', async () => {
  let isBroken = true
  const record = async () => {
    if (isBroken) throw new PosternError('RECORD_FAILED', 'the disk is full')
  }
  const reads = new AuditReads({ record }, () => 0)
  await assert.rejects(reads.note(ANN), { code: 'RECORD_FAILED' })
  await assert.rejects(reads.note(ANN), { code: 'RECORD_FAILED' })
  isBroken = false
  await reads.note(ANN)
})
