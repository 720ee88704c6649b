import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import type { ServiceLabel } from '@postern/shared/service-label'
import { appendAuditEvents, listAuditEvents, readAuditLog } from './audit-events.ts'
import { testChain, verifyAll } from './audit-suite.ts'
import {
  insertCertificate,
  type NewCertificate,
  renewCertificate,
  revokeConnectorLineage,
} from './certificates.ts'
import { upsertIdentity } from './identities.ts'
import { account, NOW, type StoreFactory } from './login-suite.ts'
import { consumeOidcRecord, upsertOidcRecord } from './oidc-records.ts'
import type { Store } from './open.ts'
import { useOnce } from './replay-guards.ts'
import { createService, deleteService, findServiceById, listServices, updateService } from './services.ts'
import { createSession, endSession } from './sessions.ts'
import {
  createUpstreamLogin,
  storeVerifiedAccount,
  takeUpstreamLogin,
  takeVerifiedAccount,
} from './upstream-logins.ts'

const ALLOW = { emailDomains: ['mycorp.com'], emailAddresses: [], anyAuthenticated: false }
const MANY = Array.from({ length: 20 }, (_, index) => index)

/** What two requests at once must not do, on any database: each of twenty goes at the same thing. */
export function describeRaces(name: string, openEmpty: StoreFactory): void {
  describe(`${name}: twenty at once`, () => {
    it('sign in as one person and get one id', async () => {
      await using store = await openEmpty()
      const people = await Promise.all(
        MANY.map((n) => upsertIdentity(store.db, account('a@b.co', '17'), NOW + n)),
      )
      assert.equal(new Set(people.map((person) => person.id)).size, 1)
    })

    it('claim one label: one owner gets it, the others hear that it is taken', async () => {
      await using store = await openEmpty()
      const owners = await Promise.all(MANY.map((n) => person(store, `p${n}@mycorp.com`)))
      const outcomes = await outcomesOf(owners.map((owner) => createService(store.db, service(owner), NOW)))
      assert.deepEqual(outcomes, ['LABEL_TAKEN 19', 'ok 1'])
    })

    it('claim one name of one owner: one gets it, the others hear that the name is taken', async () => {
      await using store = await openEmpty()
      const owner = await person(store, 'a@mycorp.com')
      const claims = MANY.map((n) => createService(store.db, service(owner, `calm-river-${n}`), NOW))
      assert.deepEqual(await outcomesOf(claims), ['NAME_TAKEN 19', 'ok 1'])
      assert.equal((await listServices(store.db)).length, 1)
    })

    it('claim a label whose owner comes and goes: it stays with one of them', async () => {
      await using store = await openEmpty()
      const owners = await Promise.all(MANY.map((n) => person(store, `p${n}@mycorp.com`)))
      const comeAndGo = async (owner: string) => {
        const created = await createService(store.db, service(owner), NOW)
        await deleteService(store.db, created.id, NOW + 1)
      }
      assert.deepEqual(await outcomesOf(owners.map(comeAndGo)), ['LABEL_TAKEN 19', 'ok 1'])
      const [label, ...others] = await store.db.selectFrom('labels').selectAll().execute()
      const rows = await store.db.selectFrom('services').select('owner_id').execute()
      assert.deepEqual(others, [])
      assert.deepEqual(
        rows.map((row) => row.owner_id),
        [label!.owner_id],
        'nobody else ever had a service there',
      )
    })

    it('rename services of one owner to one name: one keeps it', async () => {
      await using store = await openEmpty()
      const owner = await person(store, 'a@mycorp.com')
      const services = await Promise.all(
        MANY.map((n) =>
          createService(store.db, { ...service(owner, `calm-river-${n}`), name: `s${n}` }, NOW),
        ),
      )
      const renames = services.map(({ id }) => updateService(store.db, id, { name: 'db' }, NOW))
      assert.deepEqual(await outcomesOf(renames), ['NAME_TAKEN 19', 'ok 1'])
    })

    it('change a service: each change counts, unless it looked at an older revision', async () => {
      await using store = await openEmpty()
      const { id } = await createService(store.db, service(await person(store, 'a@mycorp.com')), NOW)
      const blind = MANY.map((n) =>
        updateService(store.db, id, { allow: { ...ALLOW, emailAddresses: [`${n}@x.co`] } }, NOW),
      )
      assert.deepEqual(await outcomesOf(blind), ['ok 20'])
      assert.equal((await findServiceById(store.db, id))?.revision, 21)
      const seeing = MANY.map(() => updateService(store.db, id, { allow: ALLOW, revision: 21 }, NOW))
      assert.deepEqual(await outcomesOf(seeing), ['REVISION_CONFLICT 19', 'ok 1'])
    })

    it('renew one certificate: one does', async () => {
      await using store = await openEmpty()
      const first = await connectorCertificate(store)
      const renewals = MANY.map((n) =>
        renewCertificate(store.db, first.serial, { ...first, serial: `b${n}` }),
      )
      assert.equal((await Promise.all(renewals)).filter(Boolean).length, 1)
      assert.equal((await store.db.selectFrom('certificates').select('serial').execute()).length, 2)
    })

    it('renew while their lineage is revoked: nothing of it is left to use', async () => {
      await using store = await openEmpty()
      const first = await connectorCertificate(store)
      const connectors = MANY.map((n) => ({ ...first, serial: `${n}-0`, connectorId: `con-${n}` }))
      await Promise.all(connectors.map((certificate) => insertCertificate(store.db, certificate)))
      await Promise.all(connectors.map((certificate) => renewUntilRevoked(store, certificate)))
      const usable = await store.db
        .selectFrom('certificates')
        .select('serial')
        .where('revoked_at', 'is', null)
        .where('serial', '!=', first.serial)
        .execute()
      assert.deepEqual(usable, [])
    })

    it('end one session: one did', async () => {
      await using store = await openEmpty()
      const identityId = await person(store, 'a@mycorp.com')
      const { id } = await createSession(store.db, { ...SESSION, identityId }, NOW)
      const ends = await Promise.all(MANY.map((n) => endSession(store.db, id, { reason: `r${n}`, now: NOW })))
      assert.equal(ends.filter(Boolean).length, 1)
    })

    it('take what is given once: one gets it', async () => {
      await using store = await openEmpty()
      const { db } = store
      const keys = { state: 'state-1', cookie: 'cookie-1' }
      const login = { interactionUid: 'i', codeVerifier: 'v', nonce: 'n', expiresAt: NOW + 600_000 }
      const code = { model: 'AuthorizationCode', id: 'code-1' }
      await createUpstreamLogin(db, keys, login, NOW)
      await upsertOidcRecord(db, code, {}, NOW + 60_000)
      const winners = async (take: () => Promise<unknown>) =>
        (await Promise.all(MANY.map(take))).filter(Boolean).length
      assert.equal(await winners(() => takeUpstreamLogin(db, keys, NOW)), 1, 'state')
      assert.equal(
        await winners(() => storeVerifiedAccount(db, keys.cookie, account('a@b.co'), NOW)),
        1,
        'callback',
      )
      assert.equal(await winners(() => takeVerifiedAccount(db, keys.cookie, NOW)), 1, 'account')
      assert.equal(await winners(() => consumeOidcRecord(db, code, NOW)), 1, 'code')
      assert.equal(await winners(() => useOnce(db, 'dpop:k:jti', NOW + 1)), 1, 'jti')
    })

    it('write to the audit log: whoever reads on from the newest number misses nothing', async () => {
      await using store = await openEmpty()
      let isWritten = false
      const seen: number[] = []
      const follow = async () => {
        for (let after = 0, isLast = false; ; ) {
          const page = await listAuditEvents(store.db, { after, limit: 1_000 })
          seen.push(...page.filter(({ type }) => !type.startsWith('audit.')).map((row) => row.at))
          after = page.at(-1)?.seq ?? after
          if (isLast && page.length === 0) return
          isLast = isWritten
        }
      }
      const following = follow()
      const write = async (n: number) => {
        for (let step = 0; step < 10; step++) {
          const rows = Array.from({ length: 1 + (n % 5) * 40 }, () => auditRow(n * 10 + step))
          await appendAuditEvents(store.db, testChain(`chn_${n % 2}`), rows)
        }
      }
      await Promise.all(MANY.map(write)).finally(() => {
        isWritten = true
      })
      await following
      assert.equal(new Set(seen).size, MANY.length * 10)
      assert.equal(
        seen.length,
        MANY.reduce((sum, n) => sum + (1 + (n % 5) * 40) * 10, 0),
      )
      const log = await readAuditLog(store.db, { after: 0, limit: 100_000 })
      assert.equal(verifyAll(log).chains.length, 2, 'two edges, many writers, no fork')
    })
  })
}

const SESSION = {
  grantId: 'g',
  kind: 'browser' as const,
  clientAddress: '203.0.113.7',
  expiresAt: NOW + 1_000,
}

/** A connector that renews again and again, and somebody who shows a copy of its first certificate meanwhile. */
async function renewUntilRevoked(store: Store, first: NewCertificate): Promise<void> {
  let revocation: Promise<unknown> | undefined
  let serial = first.serial
  for (let step = 1; step < 30; step++) {
    const next = `${first.connectorId}-${step}`
    const renewing = renewCertificate(store.db, serial, { ...first, serial: next })
    if (step === 3) {
      revocation = revokeConnectorLineage(store.db, first.connectorId!, { reason: 'superseded', now: NOW })
    }
    if (!(await renewing)) break
    serial = next
  }
  await revocation
}

/** `['LABEL_TAKEN 19', 'ok 1']` */
async function outcomesOf(promises: readonly Promise<unknown>[]): Promise<string[]> {
  const counts: Record<string, number> = {}
  for (const result of await Promise.allSettled(promises)) {
    const outcome = result.status === 'fulfilled' ? 'ok' : (result.reason.code ?? String(result.reason))
    counts[outcome] = (counts[outcome] ?? 0) + 1
  }
  return Object.entries(counts)
    .map(([outcome, count]) => `${outcome} ${count}`)
    .sort()
}

function service(ownerId: string, label = 'calm-river-17') {
  return { label: label as ServiceLabel, name: 'db', type: 'tls' as const, ownerId, allow: ALLOW }
}

async function person(store: Store, email: string): Promise<string> {
  return (await upsertIdentity(store.db, account(email), NOW)).id
}

async function connectorCertificate(store: Store): Promise<NewCertificate> {
  const identityId = await person(store, 'dev@mycorp.com')
  const { id: serviceId } = await createService(store.db, service(identityId), NOW)
  const certificate: NewCertificate = {
    serial: 'a',
    kind: 'connector',
    keyHash: 'ab',
    identityId,
    sessionId: undefined,
    serviceId,
    connectorId: 'con-first',
    machine: 'db-host',
    notBefore: NOW,
    notAfter: NOW + 1,
    issuedAt: NOW,
  }
  await insertCertificate(store.db, certificate)
  return certificate
}

function auditRow(at: number) {
  return {
    at,
    type: 'login.ok',
    flowId: undefined,
    identityId: undefined,
    serviceId: undefined,
    code: undefined,
    event: '{}',
  }
}
