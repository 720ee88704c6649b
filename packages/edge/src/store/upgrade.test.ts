import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, describe, it } from 'node:test'
import { Kysely } from 'kysely'
import { Migrator } from 'kysely/migration'
import { newDatabase, overTcp, PASSWORD } from '../../test/postgres.ts'
import { runProgram } from '../program.ts'
import { appendAuditEvents, listAuditEvents, readAuditLog } from './audit-events.ts'
import { testChain, verifyAll } from './audit-suite.ts'
import { parseStoreLocation } from './location.ts'
import { nodeSqliteDialect } from './node-sqlite.ts'
import { MIGRATIONS, openStore } from './open.ts'
import { postgresDialect } from './postgres.ts'

const folder = mkdtempSync(join(tmpdir(), 'postern-upgrade-'))
after(() => rmSync(folder, { recursive: true }))

type Rows = Record<string, Record<string, unknown>[]>

const PERSON = {
  issuer: 'https://idp.co',
  subject: '17',
  email: 'a@b.co',
  groups: '[]',
  created_at: 1_800_000_000_001,
}
const SERVICE = {
  label: 'calm-river-17',
  name: 'db',
  type: 'tls',
  owner_id: 'idn_1',
  allow: '{}',
  revision: 3,
}
const LOGIN = { grant_id: 'g', kind: 'browser', client_address: '::1', created_at: 1, expires_at: 2 }

const INITIAL: Rows = {
  identities: [{ id: 'idn_1', ...PERSON, last_login_at: 1_800_000_000_002 }],
  sessions: [{ id: 'ses_1', identity_id: 'idn_1', ...LOGIN, ended_at: null, end_reason: null }],
  oidc_records: [{ model: 'Grant', id_hash: 'aa', payload: 'sealed', expires_at: null, consumed_at: 5 }],
  upstream_logins: [{ state_hash: 'a', cookie_hash: 'b', secrets: 's', created_at: 1, expires_at: 2 }],
  replay_guards: [{ key_hash: 'k', expires_at: 9_007_199_254_740_991 }],
  services: [{ id: 'svc_1', ...SERVICE, created_at: 1, updated_at: 2, deleted_at: null }],
  labels: [{ label: 'calm-river-17', owner_id: 'idn_1', service_id: 'svc_1' }],
  certificates: [
    {
      serial: '0a',
      kind: 'connector',
      key_hash: 'k',
      identity_id: 'idn_1',
      service_id: 'svc_1',
      connector_id: 'con_1',
      not_before: 1,
      not_after: 2,
      issued_at: 1,
    },
  ],
  audit_events: Array.from({ length: 1_201 }, (_, n) => ({
    at: n,
    type: 'login.ok',
    event: '{"ü":"\\u0000"}',
  })),
}

const POLICY = { scope: 'defaults', policy: '{}', revision: 1, changed_at: 2, changed_by: 'idn_1' }
const POLICIES: Rows = { policies: [POLICY], policy_history: [POLICY] }
const WITH_ENROLL_TOKENS: Rows = {
  ...INITIAL,
  enroll_tokens: [
    {
      token_hash: 'aa',
      id: 'enr_1',
      service_id: 'svc_1',
      created_by: 'idn_1',
      connector_id: 'con_2',
      created_at: 1,
      expires_at: 2,
      used_at: null,
      key_hash: null,
    },
  ],
}

const WITH_SSH: Rows = {
  ...WITH_ENROLL_TOKENS,
  ssh_certificates: [
    {
      serial: 'ffffffffffffffff',
      kind: 'user',
      fingerprint: 'SHA256:x',
      key_id: 'a@b.co',
      principals: '["a@b.co"]',
      identity_id: 'idn_1',
      session_id: 'ses_1',
      service_id: 'svc_1',
      client_address: '::1',
      not_before: 1,
      not_after: 2,
      issued_at: 1,
      revoked_at: 2,
    },
  ],
  ssh_host_keys: [{ service_id: 'svc_1', keys: '[]', revision: 2, pending: null, updated_at: 3 }],
  ssh_revoked_key_ids: [{ key_id: 'a@b.co', until: 5 }],
  ssh_krl: [{ id: 'krl', version: 1_800_000_000_000 }],
}

const WITH_SESSION_FACTS: Rows = {
  ...WITH_SSH,
  sessions: [{ ...INITIAL.sessions![0], amr: '["otp"]', acr: 'high', auth_time: 1_800_000_000_003 }],
}

const WITH_LOCKS: Rows = {
  ...WITH_SESSION_FACTS,
  policies: [POLICY],
  policy_history: [POLICY],
  locks: [{ key: 'a@b.co', email: 'a@b.co', until: null, reason: 'left', locked_at: 3, locked_by: 'idn_1' }],
}

const WITH_CHAINS: Rows = {
  ...WITH_LOCKS,
  audit_chains: [{ id: 'chn_1', position: 7, hash: 'ab', checkpoint_position: 6, checkpoint_at: 5 }],
  audit_sinks: [{ id: 's', chain: 'chn_1', position: 6 }],
}

const WITH_WORKLOADS: Rows = {
  ...WITH_CHAINS,
  certificates: [
    INITIAL.certificates![0]!,
    {
      ...INITIAL.certificates![0],
      ...{ serial: '0b', kind: 'workload', connector_id: null },
      ...{ workload_id: 'wld_1', workload: 'carbon-relay-3', renewable_until: 1_800_000_000_004 },
    },
  ],
}

/** Rows of every table as each schema had them. A migration adds an entry with the state it leaves behind. */
const WITH_TRUST: Rows = { ...WITH_WORKLOADS, policies: [{ ...POLICY, trusts_cas: 1 }] }
const WITH_FLEET: Rows = {
  ...WITH_TRUST,
  acme_proofs: [{ name: 'edge.co', token: 't', sealed: 's', expires_at: 1_800_000_000_000 }],
  leases: [{ name: 'acme-order', holder: 'e', until: 1_800_000_000_000 }],
}
const WITH_EDGE_KEYS: Rows = {
  ...WITH_FLEET,
  edge_keys: [{ edge: 'e', place: 'edge-1, process 7', keys: '{}', seen_at: 1_800_000_000_005 }],
}
const SERVER_CERTIFICATE = {
  ...{
    serial: '0c',
    key_hash: 'cd',
    names: '["db.internal"]',
    identity_id: INITIAL.certificates![0]!.identity_id,
  },
  ...{ not_before: 1, not_after: 1_800_000_000_006, issued_at: 2, revoked_at: 3, revoked_reason: 'revoked' },
}
const DATA: Readonly<Record<keyof typeof MIGRATIONS, Rows>> = {
  '0001-initial': INITIAL,
  '0002-enroll-tokens': WITH_ENROLL_TOKENS,
  '0003-ssh': WITH_SSH,
  '0004-session-facts': WITH_SESSION_FACTS,
  '0005-policies': {
    ...WITH_SESSION_FACTS,
    ...POLICIES,
  },
  '0006-locks': WITH_LOCKS,
  '0007-audit-chain': WITH_CHAINS,
  '0008-audit-flow-index': WITH_CHAINS,
  '0009-workloads': WITH_WORKLOADS,
  '0010-trusted-cas': WITH_TRUST,
  '0011-policy-last': WITH_TRUST,
  '0012-acme-fleet': WITH_FLEET,
  '0013-edge-keys': WITH_EDGE_KEYS,
  '0014-server-certificates': {
    ...WITH_EDGE_KEYS,
    server_certificates: [SERVER_CERTIFICATE],
  },
}
const NEWEST = '0014-server-certificates'

/** Makes the store as it was at one version, with its data. */
async function makeStore(location: string, version: keyof typeof MIGRATIONS): Promise<void> {
  const parsed = parseStoreLocation(location)
  const dialect = parsed.kind === 'sqlite' ? nodeSqliteDialect(parsed.path) : postgresDialect(parsed)
  const db = new Kysely<Record<string, Record<string, unknown>>>({ dialect })
  const migrator = new Migrator({ db, provider: { getMigrations: async () => MIGRATIONS } })
  const { error } = await migrator.migrateTo(version)
  if (error) throw error
  for (const [table, rows] of Object.entries(DATA[version])) await db.insertInto(table).values(rows).execute()
  await db.destroy()
}

/** Whether all that was put in is there, whatever columns have come since. */
async function assertKept(location: string, version: keyof typeof MIGRATIONS): Promise<void> {
  await using store = await openStore(location)
  const db = store.db as unknown as Kysely<Record<string, Record<string, unknown>>>
  for (const [table, rows] of Object.entries(DATA[version])) {
    const found = await db.selectFrom(table).selectAll().execute()
    assert.equal(found.length, rows.length, table)
    for (const [index, row] of rows.entries()) assert.partialDeepStrictEqual({ ...found[index] }, row, table)
  }
}

async function run(...args: string[]): Promise<string> {
  let printed = ''
  const output = {
    write(text: string) {
      printed += text
    },
  }
  const takeStopSignal = () => AbortSignal.abort()
  await runProgram(args, { stdout: output, stderr: output, cwd: folder, takeStopSignal })
  return printed
}

const PLACES: Readonly<Record<string, (name: string) => Promise<string>>> = {
  sqlite: async (name) => `sqlite:${join(folder, `${name}.sqlite`)}`,
  postgres: () => newDatabase(),
}

for (const [name, place] of Object.entries(PLACES)) {
  describe(`${name}: upgrade`, () => {
    for (const version of Object.keys(MIGRATIONS) as (keyof typeof MIGRATIONS)[]) {
      it(`from ${version}, with data in it`, async () => {
        const location = await place(version)
        await makeStore(location, version)
        await assertKept(location, version)
      })
    }

    it('refuses a store of a newer version', async () => {
      const location = await place('newer')
      const store = await openStore(location)
      const row = { name: '9999-later', timestamp: new Date().toISOString() }
      await store.db
        .insertInto('kysely_migration' as never)
        .values(row as never)
        .execute()
      await store.close()
      await assert.rejects(openStore(location), { code: 'STATE_INVALID', message: /9999-later/ })
    })
  })
}

describe('postern-edge store', () => {
  it('migrate says what it did, and no password', async () => {
    const file = join(folder, 'edge.yaml')
    const store = overTcp(await newDatabase())
    const dev = { domain: 'edge.localhost', listen: '127.0.0.1:0', identity: { dev: true } }
    writeFileSync(file, JSON.stringify({ ...dev, store }), { mode: 0o600 })
    assert.match(await run('store', 'migrate', '--config', file), /is up to date \(0001-initial/)
    assert.match(await run('store', 'migrate', '--config', file), /is up to date \(nothing to do\)/)
    const printed =
      (await run('store', 'migrate', '--config', file)) + (await run('config', 'check', '--config', file))
    assert.match(printed, /^store +postgres:\/\/postern@127\.0\.0\.1:\d+\/t\w+$/m)
    assert.doesNotMatch(printed, /canary/)
  })

  it('copy moves everything, once, and the log goes on behind it', async () => {
    const [from, to] = [`sqlite:${join(folder, 'old.sqlite')}`, await newDatabase()]
    await makeStore(from, NEWEST)
    const passwordFile = join(folder, 'password')
    writeFileSync(passwordFile, PASSWORD, { mode: 0o600 })
    const url = overTcp(to)
    await assert.rejects(run('store', 'copy', '--from', from, '--to', url), { message: /--to-password-file/ })
    const target = ['--to', url.replace(/:[^:@/]*@/, '@'), '--to-password-file', passwordFile]
    const printed = await run('store', 'copy', '--from', from, ...target)
    assert.match(
      printed,
      /audit_events: 1201 rows\n.*audit_chains: 1 rows\n.*audit_sinks: 1 rows\n.*acme_proofs: 1 rows\n.*leases: 1 rows\n.*copied to postgres:/,
    )
    assert.doesNotMatch(printed, /canary/)
    await assertKept(to, NEWEST)
    await assertKept(from, NEWEST)
    await assert.rejects(run('store', 'copy', '--from', from, ...target), {
      code: 'STATE_INVALID',
      message: /is not empty: identities has rows/,
    })
    await using store = await openStore(to)
    await appendAuditEvents(store.db, testChain('chn_test'), [])
    const [genesis] = await listAuditEvents(store.db, { after: 1_201, limit: 1 })
    assert.equal(genesis?.seq, 1_202)
    const log = await readAuditLog(store.db, { after: 0, limit: 5_000 })
    assert.equal(verifyAll(log).unlinked, 1_201, 'what was there before is outside of the chain')
    assert.match(genesis!.event, /"before":\{"records":1201,"lastSeq":1201\}/)
  })

  it('copy refuses a store that is not there, and other directions', async () => {
    const to = await newDatabase()
    await assert.rejects(run('store', 'copy', '--from', 'sqlite:/nonexistent/x', '--to', to), {
      code: 'USAGE_INVALID',
    })
    await assert.rejects(run('store', 'copy', '--from', to, '--to', 'sqlite:x'), { code: 'USAGE_INVALID' })
  })
})
