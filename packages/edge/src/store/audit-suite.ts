import assert from 'node:assert/strict'
import { generateKeyPairSync } from 'node:crypto'
import { describe, it } from 'node:test'
import { type ExportedRecord, formatExportLine } from '@postern/shared/audit/record'
import { ExportVerifier, type VerifiedExport } from '@postern/shared/audit/verify'
import { keepChain } from '../audit/chain.ts'
import type { AuditEvent } from '../audit/event.ts'
import { pruneAuditLog } from '../audit/retention.ts'
import { toRow } from '../audit/to-row.ts'
import {
  type AuditChain,
  type AuditRow,
  appendAuditEvents,
  findHead,
  listAuditEvents,
  readAuditChain,
  readAuditLog,
} from './audit-events.ts'
import { readSinkPosition, saveSinkPosition, startSink } from './audit-sinks.ts'
import { NOW, type StoreFactory } from './login-suite.ts'

const KEY = generateKeyPairSync('ed25519').privateKey

/** A chain with a checkpoint at its start and then behind every fiftieth record. */
export function testChain(id: string): AuditChain {
  return keepChain({ id, key: KEY, everyRecords: 50, everyMs: 600_000 }, () => NOW)
}

/** @throws AUDIT_BROKEN */
export function verifyAll(log: readonly ExportedRecord[]): VerifiedExport {
  const verifier = new ExportVerifier()
  for (const record of log) verifier.add(formatExportLine(record))
  return verifier.finish()
}

/** The audit log and its chains, on any database. */
export function describeAuditTables(name: string, openEmpty: StoreFactory): void {
  describe(`${name}: audit events`, () => {
    const CHAIN = testChain('chn_test')

    it('numbers events in the order they were written', async () => {
      await using store = await openEmpty()
      await appendAuditEvents(store.db, CHAIN, [event('login.ok', 1), event('flow.decided', 2)])
      await appendAuditEvents(store.db, CHAIN, [event('login.ok', 3)])
      const all = await listAuditEvents(store.db, { limit: 10 })
      assert.deepEqual(
        all.map((row) => row.type),
        ['audit.chain_started', 'login.ok', 'flow.decided', 'audit.checkpoint', 'login.ok'],
      )
      assert.ok(all.every((row, index) => index === 0 || row.seq > all[index - 1]!.seq))
    })

    it('pages forward, and without a start gives the newest', async () => {
      await using store = await openEmpty()
      await appendAuditEvents(store.db, CHAIN, [])
      const start = (await listAuditEvents(store.db, { limit: 1 }))[0]!.seq
      const rows = [1, 2, 3, 4].map((n) => event(n % 2 ? 'login.ok' : 'flow.decided', n))
      await appendAuditEvents(store.db, CHAIN, rows)
      const at = async (page: Parameters<typeof listAuditEvents>[1]) =>
        (await listAuditEvents(store.db, page)).map((row) => row.at - NOW)
      const first = await listAuditEvents(store.db, { after: start, limit: 2 })
      assert.deepEqual(
        first.map((row) => row.at - NOW),
        [1, 2],
      )
      assert.deepEqual(await at({ after: first[1]!.seq, limit: 9 }), [3, 4])
      assert.deepEqual(await at({ limit: 2 }), [3, 4])
      assert.deepEqual(await at({ limit: 9, type: 'login.ok' }), [1, 3])
    })

    it('filters by type, code, flow, identity, service and time, all at once', async () => {
      await using store = await openEmpty()
      await appendAuditEvents(store.db, CHAIN, [
        { ...event('flow.decided', 1), flowId: 'f1', serviceId: 'svc_1', code: 'ACCESS_DENIED' },
        { ...event('flow.decided', 2), flowId: 'f2', serviceId: 'svc_2', identityId: 'idn_2' },
        { ...event('flow.closed', 3), flowId: 'f1', serviceId: 'svc_1', code: 'FLOW_REVOKED' },
      ])
      const found = async (filter: Omit<Parameters<typeof listAuditEvents>[1], 'limit'>) =>
        (await listAuditEvents(store.db, { ...filter, limit: 9 }))
          .filter(({ type }) => !type.startsWith('audit.'))
          .map((row) => row.at - NOW)
      assert.deepEqual(await found({ code: 'ACCESS_DENIED' }), [1])
      assert.deepEqual(await found({ flowId: 'f1' }), [1, 3])
      assert.deepEqual(await found({ identityIds: ['idn_2', 'idn_3'] }), [2])
      assert.deepEqual(await found({ identityIds: [] }), [], 'nobody is not everybody')
      assert.deepEqual(await found({ serviceIds: ['svc_1'] }), [1, 3])
      assert.deepEqual(await found({ since: NOW + 2, until: NOW + 3 }), [2])
      assert.deepEqual(await found({ serviceIds: ['svc_1'], type: 'flow.closed', code: 'ACCESS_DENIED' }), [])
    })

    it('writes more events than one statement takes, linked', async () => {
      await using store = await openEmpty()
      const rows = Array.from({ length: 1_201 }, (_, n) => event('login.ok', n))
      const { head } = await appendAuditEvents(store.db, CHAIN, rows)
      const log = await readAuditLog(store.db, { after: 0, limit: 5_000 })
      const { records, chains } = verifyAll(log)
      assert.deepEqual([records, chains[0]?.signedTo, chains[0]?.to], [1_203, 1_202, 1_203])
      assert.deepEqual([head.position, head.hash], [1_203, chains[0]?.hash])
    })

    it('goes on where the chain stands, for each edge on its own', async () => {
      await using store = await openEmpty()
      const other = testChain('chn_other')
      for (let n = 0; n < 60; n++) {
        await appendAuditEvents(store.db, n % 3 ? CHAIN : other, [event('login.ok', n)])
      }
      const log = await readAuditLog(store.db, { after: 0, limit: 500 })
      assert.deepEqual(
        verifyAll(log).chains.map(({ chain, from, to }) => [chain, from, to]),
        [
          ['chn_other', 1, 22],
          ['chn_test', 1, 42],
        ],
      )
      const part = await readAuditChain(store.db, { chain: 'chn_other', after: 20, limit: 9 })
      assert.deepEqual(
        part.map((record) => record.chain && record.position),
        [21, 22],
      )
      assert.deepEqual((await findHead(store.db, 'chn_other'))?.hash, part[1]?.chain && part[1].hash)
    })

    it('goes on where the chain stands, wherever it is told that it does', async () => {
      await using store = await openEmpty()
      const { head: old } = await appendAuditEvents(store.db, CHAIN, [event('login.ok', 1)])
      let { head } = await appendAuditEvents(store.db, CHAIN, [event('login.ok', 2)], { after: old })
      assert.equal(head.position, old.position + 1)
      const ahead = { ...head, position: head.position + 7 }
      const forged = { ...head, hash: old.hash }
      for (const after of [old, ahead, forged, head]) {
        const options = { after, mustSign: true }
        const appended = await appendAuditEvents(store.db, CHAIN, [event('login.ok', 3)], options)
        assert.deepEqual(
          [appended.head.position, appended.head.checkpointPosition],
          [head.position + 2, head.position + 2],
        )
        assert.deepEqual(await findHead(store.db, CHAIN.id), appended.head)
        head = appended.head
      }
      const log = await readAuditLog(store.db, { after: 0, limit: 99 })
      assert.deepEqual([log.length, verifyAll(log).records], [head.position, head.position])
    })

    it('signs when it must, and not twice', async () => {
      await using store = await openEmpty()
      const { head: first } = await appendAuditEvents(store.db, CHAIN, [])
      assert.deepEqual([first.position, first.checkpointPosition], [2, 2])
      assert.deepEqual((await appendAuditEvents(store.db, CHAIN, [], { mustSign: true })).head, first)
      const { head: second } = await appendAuditEvents(store.db, CHAIN, [event('login.ok', 1)], {
        mustSign: true,
      })
      assert.deepEqual([second.position, second.checkpointPosition], [4, 4])
      const many = Array.from({ length: 50 }, (_, n) => event('login.ok', n))
      assert.equal((await appendAuditEvents(store.db, CHAIN, many)).head.checkpointPosition, 55)
    })

    it('leaves head and records as they were when a write fails', async () => {
      await using store = await openEmpty()
      const { head: before } = await appendAuditEvents(store.db, CHAIN, [event('login.ok', 1)])
      const bad = { ...event('login.ok', 2), event: null as unknown as string }
      for (const after of [undefined, before])
        await assert.rejects(appendAuditEvents(store.db, CHAIN, [event('login.ok', 2), bad], { after }))
      assert.deepEqual(await findHead(store.db, CHAIN.id), before)
      await appendAuditEvents(store.db, CHAIN, [event('login.ok', 3)])
      assert.equal(verifyAll(await readAuditLog(store.db, { after: 0, limit: 9 })).records, 4)
    })

    it('deletes what is old, up to a checkpoint, and is verified from there', async () => {
      await using store = await openEmpty()
      const row = { at: NOW - 5_000, type: 'login.ok', event: '{}' }
      await store.db.insertInto('audit_events').values([row, row]).execute()
      let at = NOW
      const aging = keepChain({ id: 'chn_age', key: KEY, everyRecords: 50, everyMs: 600_000 }, () => at)
      const record = async (audited: AuditEvent) =>
        void (await appendAuditEvents(store.db, aging, [toRow(audited, at)]))
      for (let n = 0; n < 60; n++) await appendAuditEvents(store.db, aging, [event('login.ok', n)])
      at = NOW + 3_600_000
      for (let n = 0; n < 60; n++) await appendAuditEvents(store.db, aging, [event('login.ok', n)])
      assert.equal(await pruneAuditLog(store.db, { record }, NOW - 9_000), 0)
      const all = await readAuditLog(store.db, { after: 0, limit: 999 })
      const deleted = await pruneAuditLog(store.db, { record }, NOW + 60_000)
      const log = await readAuditLog(store.db, { after: 0, limit: 999 })
      const { chains, unlinked } = verifyAll(log)
      assert.deepEqual([unlinked, log[0]?.type], [0, 'audit.checkpoint'])
      assert.equal(deleted, chains[0]!.from - 1 + 2)
      assert.ok(chains[0]!.from > 50)
      assert.equal(log.filter(({ type }) => type === 'audit.pruned').length, 2)
      assert.equal(
        log.length,
        all.length -
          deleted +
          2 +
          log.filter(({ seq, type }) => type === 'audit.checkpoint' && seq > all.at(-1)!.seq).length,
      )
      assert.equal(await pruneAuditLog(store.db, { record }, NOW + 60_000), 0)
    })

    it('keeps where a sink is, and never moves it back', async () => {
      await using store = await openEmpty()
      const key = { id: 's', chain: 'chn_1' }
      await startSink(store.db, key, 7)
      await startSink(store.db, key, 9)
      assert.equal(await readSinkPosition(store.db, key), 7)
      await saveSinkPosition(store.db, key, 12)
      await saveSinkPosition(store.db, key, 11)
      assert.equal(await readSinkPosition(store.db, key), 12)
      assert.equal(await readSinkPosition(store.db, { id: 's', chain: 'chn_2' }), 0)
    })
  })
}

function event(type: string, n: number): AuditRow {
  return {
    at: NOW + n,
    type,
    flowId: undefined,
    identityId: 'idn_1',
    serviceId: undefined,
    code: undefined,
    event: JSON.stringify({ type, n }),
  }
}
