import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { generateKeyPairSync } from 'node:crypto'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { afterEach, beforeEach, describe, it } from 'node:test'
import type { Worker } from 'node:worker_threads'
import { keepChain } from '../audit/chain.ts'
import { openAuditLog } from '../audit/record.ts'
import { toRow } from '../audit/to-row.ts'
import { appendAuditEvents, type ChainHead, findHead, readAuditLog } from './audit-events.ts'
import { testChain } from './audit-suite.ts'
import { openStore, type Store } from './open.ts'
import { useOnce } from './replay-guards.ts'
import type { Batch } from './sqlite-thread.ts'
import { writeIf } from './write-if.ts'

const LATER = Date.now() + 3_600_000

/** Threads that were started in this process, the newest last. */
const threads: Worker[] = []
process.on('worker', (worker) => threads.push(worker))

let folder: string
let file: string
let store: Store

beforeEach(async () => {
  folder = mkdtempSync(path.join(tmpdir(), 'postern-sqlite-'))
  file = path.join(folder, 'edge.sqlite')
  store = await openStore(file)
})
afterEach(async () => {
  await store.close()
  rmSync(folder, { recursive: true })
})

const guards = async () => (await store.db.selectFrom('replay_guards').select('key_hash').execute()).length

/** Breaks the thread that writes. */
async function breakWriter(): Promise<void> {
  const writer = threads.at(-1)!
  const exited = new Promise((resolve) => writer.once('exit', resolve))
  await writer.terminate()
  await exited
}

/** Has the file to itself until it is disposed. */
function lockFile(): Disposable {
  const other = new DatabaseSync(file)
  other.exec('begin immediate')
  return {
    [Symbol.dispose]() {
      other.exec('rollback')
      other.close()
    },
  }
}

describe('the store on SQLite, which a thread writes', () => {
  it('is read here while a write waits, and shows what is committed only', async () => {
    await useOnce(store.db, 'first', LATER)
    let written: Promise<boolean>
    {
      using _lock = lockFile()
      written = useOnce(store.db, 'second', LATER)
      for (let round = 0; round < 50; round++) assert.equal(await guards(), 1)
    }
    assert.equal(await written, true)
    assert.equal(await guards(), 2)
    await store.db.transaction().execute(async (trx) => {
      await useOnce(trx, 'third', LATER)
      assert.equal(await guards(), 2)
    })
    assert.equal(await guards(), 3)
  })

  it('lets one transaction write at a time, in the order in which they came', async () => {
    const order: number[] = []
    const one = async (n: number) =>
      store.db.transaction().execute(async (trx) => {
        order.push(n)
        for (let step = 0; step < 3; step++) await useOnce(trx, `${n} ${step}`, LATER)
        order.push(n)
      })
    await Promise.all([1, 2, 3].map(one))
    assert.deepEqual(order, [1, 1, 2, 2, 3, 3])
    assert.equal(await guards(), 9)
  })

  it('writes what waits side by side with one commit, and nothing of the one that fails', async (t) => {
    const { mock } = t.mock.method(threads.at(-1)!, 'postMessage')
    const bad = store.db.insertInto('replay_guards').values({ key_hash: 'bad', expires_at: null as never })
    const use = (key: string) =>
      store.db.insertInto('replay_guards').values({ key_hash: key, expires_at: LATER })
    const none = store.db.deleteFrom('replay_guards').where('key_hash', '=', 'none')
    const results = await Promise.allSettled([
      use('one').execute(),
      bad.execute(),
      writeIf(store.db, use('two'), { rest: [use('three'), bad], restChanges: 2 }),
      writeIf(store.db, none, { rest: [use('four')], restChanges: 1 }),
      writeIf(store.db, use('five'), { rest: [use('six')], restChanges: 1 }),
    ])
    assert.deepEqual(
      results.map((result) => (result.status === 'rejected' ? result.reason.errcode : result.status)),
      ['fulfilled', 1299, 1299, 'fulfilled', 'fulfilled'],
    )
    assert.deepEqual(results.slice(3), [
      { status: 'fulfilled', value: false },
      { status: 'fulfilled', value: true },
    ])
    const rows = await store.db.selectFrom('replay_guards').select('key_hash').execute()
    assert.deepEqual(rows.map(({ key_hash }) => key_hash).toSorted(), ['five', 'one', 'six'])
    assert.equal(mock.callCount(), 1)
  })

  it('refuses all that wait together where none can be written', async () => {
    {
      using _lock = lockFile()
      const both = [useOnce(store.db, 'one', LATER), useOnce(store.db, 'two', LATER)]
      const results = await Promise.allSettled(both)
      for (const result of results) assert.equal(result.status === 'rejected' && result.reason.errcode, 5)
    }
    assert.equal(await guards(), 0)
    assert.equal(await useOnce(store.db, 'one', LATER), true)
  })

  it('appends to the audit log with one message', async (t) => {
    const { mock } = t.mock.method(threads.at(-1)!, 'postMessage')
    const { head } = await appendAuditEvents(store.db, testChain('chn_1'), [])
    const before = mock.callCount()
    const row = toRow({ type: 'session.ended', sessionId: 's', identityId: 'i', reason: 'test' }, LATER)
    await appendAuditEvents(store.db, testChain('chn_1'), [row, row], { after: head })
    assert.equal(mock.callCount(), before + 1)
  })

  it('carries out nothing of a transaction that cannot begin', async () => {
    await assert.rejects(
      store.db.transaction().execute(async (trx) => {
        {
          using _lock = lockFile()
          await assert.rejects(useOnce(trx, 'one', LATER), { errcode: 5 })
        }
        await useOnce(trx, 'two', LATER)
      }),
      /the transaction is over/,
    )
    assert.equal(await guards(), 0)
  })

  it('loses a transaction whole when the thread breaks, and goes on with another', async () => {
    await assert.rejects(
      store.db.transaction().execute(async (trx) => {
        await useOnce(trx, 'one', LATER)
        await breakWriter()
        await useOnce(trx, 'two', LATER)
      }),
      /the thread of the store/,
    )
    assert.equal(await guards(), 0)
    assert.equal(await useOnce(store.db, 'three', LATER), true)
    assert.equal(await guards(), 1)
  })

  it('refuses what the audit log was about to record, and the chain goes on', async () => {
    const key = generateKeyPairSync('ed25519').privateKey
    const chain = keepChain({ id: 'chn_test', key, everyRecords: 100, everyMs: 600_000 }, Date.now)
    await using audit = openAuditLog(store.db, { chain })
    const event = { type: 'session.ended', sessionId: 'ses_1', identityId: 'idn_1', reason: 'test' } as const
    await audit.record(event)
    {
      using _lock = lockFile()
      const recorded = audit.record(event)
      const refused = assert.rejects(recorded, { code: 'RECORD_FAILED' })
      while (audit.waiting === 0) await new Promise(setImmediate)
      await new Promise(setImmediate) // the thread has it, and waits for the lock
      await breakWriter()
      await refused
    }
    await audit.record(event)
    const records = await readAuditLog(store.db, { after: 0, limit: 100 })
    assert.equal(records.filter(({ type }) => type === 'session.ended').length, 2)
  })

  it('believes nothing of a thread that has carried out something else than it was told', async (t) => {
    const row = toRow({ type: 'session.ended', sessionId: 's', identityId: 'i', reason: 'test' }, LATER)
    const append = (after?: ChainHead) =>
      appendAuditEvents(store.db, testChain('chn_1'), [row, row], { after })
    const one = [{ sql: 'delete from audit_events where false', parameters: [] }]
    const misunderstandings: ((batch: Batch) => Batch)[] = [
      ({ rest, ...batch }) => Object.assign(batch, { others: rest }), // another build, with another name for it
      (batch) => ({ ...batch, rest: [...batch.rest!, ...one] }),
      (batch) => ({ ...batch, rest: one }), // as many statements, and no records
    ]
    for (const misunderstand of misunderstandings) {
      const { head } = await appendAuditEvents(store.db, testChain('chn_1'), [])
      const writer = threads.at(-1)!
      const send = writer.postMessage.bind(writer)
      t.mock.method(writer, 'postMessage', (question: { batches: Batch[] }) =>
        send({ batches: question.batches.map(misunderstand) }),
      )
      const exited = new Promise((resolve) => writer.once('exit', resolve))
      const results = await Promise.allSettled([append(head), append(head)])
      for (const result of results)
        assert.equal(result.status === 'rejected' && result.reason.code, 'RECORD_FAILED')
      await exited
    }
    const { head } = await append()
    assert.deepEqual(await findHead(store.db, 'chn_1'), head)
  })

  it('sees that another process has written, and not what it writes itself', async () => {
    const hasOtherWritten = store.hasOtherWritten!
    const other = new DatabaseSync(file)
    const write = () => other.exec(`insert into replay_guards values ('${Math.random()}', ${LATER})`)
    try {
      assert.equal(await useOnce(store.db, 'own', LATER), true)
      await appendAuditEvents(store.db, testChain('chn_1'), [])
      assert.equal(await hasOtherWritten(), false)
      other.exec('begin immediate; commit') // opened, and left as it was
      assert.equal(await hasOtherWritten(), false)
      write()
      assert.equal(await hasOtherWritten(), true)
      assert.equal(await hasOtherWritten(), false)
      // a new connection cannot know
      await breakWriter()
      assert.equal(await hasOtherWritten(), true)
      assert.equal(await hasOtherWritten(), false)
      write()
      assert.equal(await hasOtherWritten(), true)
    } finally {
      other.close()
    }
  })

  it('keeps no process alive that has forgotten to close it', () => {
    const script = path.join(folder, 'forgets.ts')
    writeFileSync(
      script,
      `import { openStore } from ${JSON.stringify(new URL('open.ts', import.meta.url).href)}
      const store = await openStore(${JSON.stringify(path.join(folder, 'other.sqlite'))})
      await store.purge()
      console.log('done')`,
    )
    const args = ['--conditions=postern-source', script]
    assert.equal(execFileSync(process.execPath, args, { encoding: 'utf8', timeout: 60_000 }), 'done\n')
  })
})
