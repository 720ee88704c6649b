import assert from 'node:assert/strict'
import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, chownSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, describe, it } from 'node:test'
import { inspect } from 'node:util'
import { sql } from 'kysely'
import { newDatabase, overTcp, ownerOfServer, startPostgres } from '../../test/postgres.ts'
import { MIGRATIONS, openStore } from './open.ts'
import { useOnce } from './replay-guards.ts'

const folder = mkdtempSync(join(tmpdir(), 'postern-store-'))
after(() => rmSync(folder, { recursive: true }))

describe('the store on disk', () => {
  it('is readable by its owner only, with its log and shared memory', async () => {
    const path = join(folder, 'new', 'edge.sqlite')
    await using store = await openStore(`sqlite:${path}`)
    await useOnce(store.db, 'k', 1)
    for (const file of [path, `${path}-wal`, `${path}-shm`]) {
      assert.equal((statSync(file).mode & 0o777).toString(8), '600', file)
    }
    assert.equal((statSync(join(folder, 'new')).mode & 0o777).toString(8), '700')
  })

  it('closes a file that was left open to others', async () => {
    const path = join(folder, 'loose.sqlite')
    writeFileSync(path, '')
    chmodSync(path, 0o644)
    await using _store = await openStore(path)
    assert.equal(statSync(path).mode & 0o777, 0o600)
  })

  it('commits to disk before it says so, in WAL mode', async () => {
    await using store = await openStore(join(folder, 'durable.sqlite'))
    const pragma = async (name: string) => (await sql.raw(`pragma ${name}`).execute(store.db)).rows[0]
    assert.deepEqual({ ...(await pragma('journal_mode'))! }, { journal_mode: 'wal' })
    assert.deepEqual({ ...(await pragma('synchronous'))! }, { synchronous: 2 })
    assert.deepEqual({ ...(await pragma('foreign_keys'))! }, { foreign_keys: 1 })
  })

  it('keeps what was written when it is opened again', async () => {
    const path = join(folder, 'again.sqlite')
    const first = await openStore(path)
    await useOnce(first.db, 'k', Number.MAX_SAFE_INTEGER)
    await first.close()
    await using second = await openStore(path)
    assert.equal(await useOnce(second.db, 'k', 1), false)
  })

  it('is migrated by two processes at once', () => migrateAtOnce(join(folder, 'two.sqlite')))

  it('refuses what is not a database, and another kind of store, by name', async () => {
    const path = join(folder, 'text.sqlite')
    writeFileSync(path, 'this is not a database, and it is long enough to be looked at as one. '.repeat(50))
    await assert.rejects(openStore(path), { code: 'STATE_INVALID', message: /text\.sqlite cannot be opened/ })
    await assert.rejects(openStore('mysql://user:secret@db/x'), (error: Error & { code: string }) => {
      assert.equal(error.code, 'CONFIG_INVALID')
      assert.match(error.message, /neither sqlite:PATH nor postgres:/)
      assert.doesNotMatch(error.message, /secret/)
      return true
    })
  })
})

describe('the store on PostgreSQL', () => {
  it('is migrated by two processes at once', async () => migrateAtOnce(await newDatabase()))

  it('is migrated once by eight that open it at once', async () => {
    const url = await newDatabase()
    const stores = await Promise.all(Array.from({ length: 8 }, () => openStore(url)))
    const migrated = stores.flatMap((store) => store.migrated)
    await Promise.all(stores.map((store) => store.close()))
    assert.deepEqual(migrated, Object.keys(MIGRATIONS))
  })

  it('answers after its record is written, and gives numbers, whatever the server prefers', async () => {
    await using store = await openStore(await newDatabase())
    const setting = async (name: string) =>
      Object.values((await sql.raw<object>(`show ${name}`).execute(store.db)).rows[0]!)[0]
    assert.equal(await setting('synchronous_commit'), 'on')
    assert.equal(await setting('transaction_isolation'), 'read committed')
    assert.equal(await setting('statement_timeout'), '30s')
    const { rows } = await sql<{ n: unknown }>`select 1800000000000::bigint as n`.execute(store.db)
    assert.equal(rows[0]!.n, 1_800_000_000_000)
  })

  it('holds ten connections at most', async () => {
    const url = await newDatabase()
    await using store = await openStore(url)
    await Promise.all(Array.from({ length: 40 }, () => sql`select pg_sleep(0.01)`.execute(store.db)))
    const count = sql<{ n: number }>`select count(*) as n from pg_stat_activity where usename = 'postern'
      and datname = current_database()`
    assert.equal((await count.execute(store.db)).rows[0]!.n, 10)
  })

  it('goes on after the server was restarted', async () => {
    await using cluster = await startPostgres()
    await using store = await openStore(overTcp(await newDatabase(cluster)))
    await useOnce(store.db, 'k', Number.MAX_SAFE_INTEGER)
    await cluster.stop()
    await assert.rejects(useOnce(store.db, 'k', 1))
    await cluster.start()
    assert.equal(await useOnce(store.db, 'k', 1), false)
  })

  it('says why it cannot be opened, without the password', async () => {
    const url = await newDatabase()
    const elsewhere = new URL(url)
    elsewhere.pathname = '/nowhere'
    for (const [location, reason] of [
      [
        overTcp(url, 'wr0ng'),
        /postgres:\/\/postern@127\.0\.0\.1:\d+\/t\w+ cannot be opened: password authentication failed/,
      ],
      [overTcp(url, ''), /it asks for a password and none was given/],
      ['postgres://postern:wr0ng@127.0.0.1:1/x', /nothing answers there \(ECONNREFUSED\)/],
      ['postgres://postern@localhost/x?host=/nonexistent', /does not exist \(ENOENT\)/],
      [elsewhere.href, /database "nowhere" does not exist/],
    ] as const) {
      await assert.rejects(openStore(location), (error: Error & { code: string }) => {
        assert.equal(error.code, 'STATE_INVALID')
        assert.match(error.message, reason)
        assert.doesNotMatch(inspect(error, { depth: 9, showHidden: true }), /wr0ng/)
        return true
      })
    }
  })

  it('checks the certificate of the database, also when only encryption was asked for', async () => {
    const tls = makeCertificate('localhost')
    await using cluster = await startPostgres({
      ssl: 'on',
      ssl_cert_file: tls.certificateFile,
      ssl_key_file: tls.keyFile,
    })
    const url = overTcp(await newDatabase(cluster)).replace('127.0.0.1', 'localhost')
    await assert.rejects(openStore(`${url}?sslmode=verify-full`), { message: /self-signed certificate/ })
    await assert.rejects(
      openStore(
        `${url.replace('localhost', '127.0.0.1')}?sslmode=verify-full&sslrootcert=${tls.certificateFile}`,
      ),
      { message: /does not match certificate/ },
    )
    await using store = await openStore(`${url}?sslmode=verify-full&sslrootcert=${tls.certificateFile}`)
    const { rows } = await sql<{
      ssl: boolean
    }>`select ssl from pg_stat_ssl where pid = pg_backend_pid()`.execute(store.db)
    assert.deepEqual(rows[0]!.ssl, true)
  })
})

async function migrateAtOnce(location: string): Promise<void> {
  const program = `
    const { openStore } = await import(${JSON.stringify(new URL('./open.ts', import.meta.url).href)})
    const store = await openStore(${JSON.stringify(location)})
    await store.close()`
  const args = ['--conditions=postern-source', '--input-type=module', '--eval', program]
  const children = [1, 2].map(() => spawn(process.execPath, args, { stdio: ['ignore', 'ignore', 'inherit'] }))
  const codes = await Promise.all(children.map(async (child) => (await once(child, 'exit'))[0]))
  assert.deepEqual(codes, [0, 0])
}

/** A self-signed one, readable by the server's own user only. */
function makeCertificate(name: string): { certificateFile: string; keyFile: string } {
  const at = mkdtempSync(join(tmpdir(), 'postern-pg-tls-'))
  after(() => rmSync(at, { recursive: true }))
  const [certificateFile, keyFile] = [join(at, 'cert.pem'), join(at, 'key.pem')]
  const subject = ['-subj', `/CN=${name}`, '-addext', `subjectAltName=DNS:${name}`]
  const kind = ['-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2']
  execFileSync('openssl', ['req', ...kind, ...subject, '-keyout', keyFile, '-out', certificateFile], {
    stdio: 'ignore',
  })
  const { uid, gid } = ownerOfServer()
  for (const file of [at, certificateFile, keyFile]) chownSync(file, uid, gid)
  chmodSync(keyFile, 0o600)
  return { certificateFile, keyFile }
}
