import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { sql } from 'kysely'
import { testChain } from '../store/audit-suite.ts'
import { openStore, type Store } from '../store/open.ts'
import type { AuditEvent, FlowDecided } from './event.ts'
import { listAuditRecords } from './list.ts'
import { type AuditLogOptions, openAuditLog } from './record.ts'

const NOW = 1_800_000_000_000
const decided: FlowDecided = {
  type: 'flow.decided',
  flowId: 'flow-1',
  identityId: 'idn_1',
  email: 'dev@mycorp.com',
  serviceId: 'svc_1',
  label: 'calm-river-17',
  clientAddress: '203.0.113.7:50514',
  certificateSerial: '4f',
  decision: 'deny',
  rule: 'no rule admits',
  ruleKind: 'none',
  code: 'ACCESS_DENIED',
}
const stranger = (clientAddress: string): AuditEvent => ({
  type: 'flow.refused',
  code: 'CERTIFICATE_REFUSED',
  flowId: 'flow-2',
  clientAddress,
})
const openMemory = () => openStore('sqlite::memory:')
const openLog = (store: Store, options: Partial<AuditLogOptions> = {}) =>
  openAuditLog(store.db, { chain: testChain('chn_test'), ...options })
/** Without what the log says of itself. */
const listOwn = async (store: Store) =>
  (await listAuditRecords(store.db, { limit: 10 })).filter(({ type }) => !type.startsWith('audit.'))

describe('the audit log', () => {
  it('holds an event, with its time and its keys, once record resolves', async () => {
    await using store = await openMemory()
    await using audit = openLog(store, { clock: () => NOW })
    await audit.record(decided)
    assert.deepEqual(await listOwn(store), [{ ...decided, seq: 2, at: NOW }])
    const row = await store.db
      .selectFrom('audit_events')
      .selectAll()
      .where('seq', '=', 2)
      .executeTakeFirstOrThrow()
    assert.deepEqual([row.flow_id, row.identity_id, row.service_id], ['flow-1', 'idn_1', 'svc_1'])
  })

  it('commits the events of one turn together, in their order', async () => {
    await using store = await openMemory()
    await using audit = openLog(store)
    let commits = 0
    const { transaction } = store.db
    store.db.transaction = function (this: typeof store.db) {
      commits += 1
      return transaction.call(this)
    } as typeof transaction
    await Promise.all(['a', 'b', 'c'].map((flowId) => audit.record({ ...decided, flowId })))
    assert.equal(commits, 1)
    const records = await listOwn(store)
    assert.deepEqual(
      records.map((record) => record.flowId),
      ['a', 'b', 'c'],
    )
  })

  it('rejects what the store does not take, and records again once it does', async () => {
    await using store = await openMemory()
    await using audit = openLog(store)
    await sql`create trigger full_disk before insert on audit_events begin select raise(fail, 'disk full'); end`.execute(
      store.db,
    )
    const [one, two] = await Promise.allSettled([audit.record(decided), audit.record(decided)])
    for (const result of [one!, two!]) {
      assert.equal(result.status, 'rejected')
      assert.equal(result.status === 'rejected' && result.reason.code, 'RECORD_FAILED')
    }
    await sql`drop trigger full_disk`.execute(store.db)
    await audit.record(decided)
    assert.equal((await listOwn(store)).length, 1)
  })

  it('refuses when too many events wait', async () => {
    await using store = await openMemory()
    await using audit = openLog(store, { maxWaiting: 2 })
    const results = await Promise.allSettled([1, 2, 3].map(() => audit.record(decided)))
    assert.deepEqual(
      results.map((result) => result.status),
      ['fulfilled', 'fulfilled', 'rejected'],
    )
    await audit.record(decided)
  })

  it('writes what waits when it is closed, and nothing afterwards', async () => {
    await using store = await openMemory()
    const audit = openLog(store)
    const recorded = audit.record(decided)
    await audit.close()
    await recorded
    await assert.rejects(audit.record(decided), { code: 'RECORD_FAILED' })
    assert.equal((await listOwn(store)).length, 1)
  })

  it('counts the refusals of strangers per code and minute', async () => {
    await using store = await openMemory()
    let now = NOW
    const audit = openLog(store, { clock: () => now })
    for (let port = 1; port <= 500; port++) await audit.record(stranger(`203.0.113.7:${port}`))
    await audit.record(stranger('[2001:db8::7]:1'))
    await audit.record(stranger('2001:db8::8'))
    assert.equal((await listOwn(store)).length, 0)
    now += 60_000
    for (let host = 1; host <= 50; host++) await audit.record(stranger(`203.0.113.${host}:1`))
    const token = { type: 'enroll_token.refused', code: 'ENROLL_TOKEN_INVALID' } as const
    for (let port = 1; port <= 9; port++)
      await audit.record({ ...token, clientAddress: `203.0.113.7:${port}` })
    await audit.close()
    const [first, second, third] = await listOwn(store)
    assert.equal(first?.count, 502)
    assert.equal(first?.since, NOW)
    assert.deepEqual(first?.clientAddresses, ['203.0.113.7', '[2001:db8::7]', '2001:db8::8'])
    assert.equal(second?.count, 50)
    assert.equal((second!.clientAddresses as string[]).length, 10)
    assert.deepEqual([third?.type, third?.count, third?.clientAddresses], [token.type, 9, ['203.0.113.7']])
  })

  it('counts what refused connectors cause, apart from flows, and names the first few of them', async () => {
    await using store = await openMemory()
    const audit = openLog(store, { clock: () => NOW })
    await audit.record(stranger('203.0.113.7:1'))
    for (let number = 1; number <= 500; number++) {
      await audit.record({
        type: 'connector.refused',
        code: 'CERTIFICATE_REFUSED',
        connectorId: `con_${number % 50}`,
        clientAddress: `203.0.113.8:${number}`,
      })
    }
    await audit.close()
    const records = await listOwn(store)
    assert.deepEqual(
      records.map(({ type, count, clientAddresses }) => [type, count, clientAddresses]),
      [
        ['flow.refused', 1, ['203.0.113.7']],
        ['connector.refused', 500, ['203.0.113.8']],
      ],
    )
    assert.equal((records[1]!.connectorIds as string[]).length, 10)
  })

  it('counts requests and sign-ins of people without a name, and names certificates that are good no more', async () => {
    await using store = await openMemory()
    const audit = openLog(store, { clock: () => NOW })
    const clientAddress = '203.0.113.8:1'
    for (let number = 1; number <= 500; number++) {
      await audit.record({
        type: 'request.refused',
        code: 'SIGN_IN_REQUIRED',
        path: `/v1/${number}`,
        clientAddress,
      })
      await audit.record({
        type: 'login.refused',
        code: 'LOGIN_FAILED',
        reason: `no ${number}`,
        clientAddress,
      })
      const certificateSerial = `${number % 50}`
      await audit.record({
        type: 'flow.refused',
        code: 'CERTIFICATE_REVOKED',
        certificateSerial,
        clientAddress,
      })
    }
    const named = { identityId: 'idn_1', email: 'ann@mycorp.com' }
    await audit.record({ type: 'request.refused', code: 'ADMIN_REQUIRED', ...named, clientAddress })
    const subject = { subject: 'ann', issuer: 'https://idp.test', reason: 'no' }
    await audit.record({ type: 'login.refused', code: 'LOGIN_REFUSED', ...subject, clientAddress })
    await audit.close()
    const records = await listOwn(store)
    assert.deepEqual(
      records.map(({ type, count }) => [type, count]),
      [
        ['request.refused', undefined],
        ['login.refused', undefined],
        ['request.refused', 500],
        ['login.refused', 500],
        ['flow.refused', 500],
      ],
    )
    assert.equal((records[4]!.certificateSerials as string[]).length, 10)
    assert.ok(!JSON.stringify(records.slice(2)).includes('/v1/'), 'what a stranger chose is not kept')
  })

  it('writes the counts of a minute that is over by itself, and keeps them while the store fails', async (context) => {
    context.mock.timers.enable({ apis: ['setInterval'] })
    await using store = await openMemory()
    let now = NOW
    await using audit = openLog(store, { clock: () => now })
    await audit.record(stranger('203.0.113.7:1'))
    const { transaction } = store.db
    const failed = new Promise<void>((resolve) => {
      store.db.transaction = () => {
        resolve()
        throw new Error('disk full')
      }
    })
    now += 60_000
    context.mock.timers.tick(60_000)
    await failed
    await new Promise(setImmediate)
    store.db.transaction = transaction
    context.mock.timers.tick(60_000)
    await audit.record(decided) // shares the commit of the counts, or comes after it
    const records = (await listOwn(store)).filter(({ type }) => type === 'flow.refused')
    assert.deepEqual(
      records.map((record) => record.count),
      [1],
    )
  })

  it('writes the refusal of a known person one by one', async () => {
    await using store = await openMemory()
    await using audit = openLog(store)
    await audit.record({ type: 'flow.refused', code: 'SESSION_ENDED', identityId: 'idn_1', flowId: 'f' })
    assert.equal((await listOwn(store)).length, 1)
  })
})
