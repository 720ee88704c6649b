import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import type { EmailAddress } from '@postern/shared/email'
import type { ServiceLabel } from '@postern/shared/service-label'
import {
  findCertificate,
  insertCertificate,
  listIssuedCertificates,
  listRevokedSerials,
  type NewCertificate,
  renewCertificate,
  revokeConnectorLineage,
  revokeSessionCertificates,
} from './certificates.ts'
import { findIdentity, listIdentities, upsertIdentity } from './identities.ts'
import { findLock, listLocks, lockAddress, unlockAddress } from './locks.ts'
import { account, NOW, type StoreFactory } from './login-suite.ts'
import type { Store } from './open.ts'
import {
  findServerCertificate,
  insertServerCertificate,
  listRevokedServerSerials,
  listServerCertificates,
  revokeServerCertificate,
} from './server-certificates.ts'
import {
  createService,
  deleteService,
  findServiceById,
  findServiceByLabel,
  findServiceByName,
  listServices,
  type NewService,
  updateService,
} from './services.ts'
import { createSession, endSession } from './sessions.ts'

const ALLOW = { emailDomains: ['mycorp.com'], emailAddresses: [], anyAuthenticated: false }

/** Services and certificates, on any database. */
export function describeDomainTables(name: string, openEmpty: StoreFactory): void {
  describe(`${name}: services`, () => {
    it('creates a service and finds it by id, label and owner and name', async () => {
      await using store = await openEmpty()
      const owner = await person(store, 'operator@mycorp.com')
      const service = await createService(store.db, wanted(owner), NOW)
      assert.equal(service.revision, 1)
      assert.deepEqual(await findServiceById(store.db, service.id), service)
      assert.deepEqual(await findServiceByLabel(store.db, 'calm-river-17'), service)
      assert.deepEqual(await findServiceByName(store.db, owner, 'db'), service)
      assert.equal(await findServiceByName(store.db, 'idn_other', 'db'), undefined)
    })

    it('lists the services of one owner, or all', async () => {
      await using store = await openEmpty()
      const [one, two] = [await person(store, 'one@mycorp.com'), await person(store, 'two@mycorp.com')]
      await createService(store.db, wanted(one), NOW)
      await createService(store.db, wanted(two, { label: 'brave-fox-2' as ServiceLabel }), NOW)
      const labels = async (ownerId?: string) =>
        (await listServices(store.db, { ownerId })).map((s) => s.label)
      assert.deepEqual(await labels(), ['brave-fox-2', 'calm-river-17'])
      assert.deepEqual(await labels(two), ['brave-fox-2'])
    })

    it('raises the revision with each change and refuses one that looked at an older', async () => {
      await using store = await openEmpty()
      const service = await createService(store.db, wanted(await person(store, 'a@mycorp.com')), NOW)
      const allow = { ...ALLOW, emailAddresses: ['x@example.com'] }
      const change = await updateService(store.db, service.id, { allow, revision: 1 }, NOW + 1)
      assert.deepEqual(change?.before, service)
      assert.deepEqual(change?.after, { ...service, allow, revision: 2, updatedAt: NOW + 1 })
      await assert.rejects(updateService(store.db, service.id, { allow: ALLOW, revision: 1 }, NOW + 2), {
        code: 'REVISION_CONFLICT',
      })
      assert.deepEqual((await findServiceById(store.db, service.id))?.allow, allow)
      assert.equal(await updateService(store.db, 'svc_unknown', { allow }, NOW), undefined)
    })

    it('never gives a label to another owner, also not after its service was deleted', async () => {
      await using store = await openEmpty()
      const [one, two] = [await person(store, 'one@mycorp.com'), await person(store, 'two@mycorp.com')]
      const service = await createService(store.db, wanted(one), NOW)
      await assert.rejects(createService(store.db, wanted(two), NOW), { code: 'LABEL_TAKEN' })
      await assert.rejects(createService(store.db, wanted(one, { name: 'other' }), NOW), {
        code: 'LABEL_TAKEN',
      })
      assert.deepEqual(await deleteService(store.db, service.id, NOW + 1), { ...service, updatedAt: NOW + 1 })
      assert.equal(await deleteService(store.db, service.id, NOW + 2), undefined)
      assert.equal(await findServiceByLabel(store.db, service.label), undefined)
      await assert.rejects(createService(store.db, wanted(two), NOW + 2), { code: 'LABEL_TAKEN' })
      assert.deepEqual(await listServices(store.db), [], 'a refused claim leaves nothing behind')
      const again = await createService(store.db, wanted(one), NOW + 3)
      assert.notEqual(again.id, service.id)
    })

    it('refuses two services of one name to one owner, and gives them to two', async () => {
      await using store = await openEmpty()
      const [one, two] = [await person(store, 'one@mycorp.com'), await person(store, 'two@mycorp.com')]
      await createService(store.db, wanted(one), NOW)
      const other = { label: 'brave-fox-2' as ServiceLabel }
      await assert.rejects(createService(store.db, wanted(one, other), NOW), { code: 'NAME_TAKEN' })
      const second = await createService(store.db, wanted(one, { ...other, name: 'web' }), NOW)
      await assert.rejects(updateService(store.db, second.id, { name: 'db' }, NOW), { code: 'NAME_TAKEN' })
      await createService(store.db, wanted(two, { label: 'deep-sea-3' as ServiceLabel }), NOW)
    })

    it('lets one of two claims of one label through', async () => {
      await using store = await openEmpty()
      const [one, two] = [await person(store, 'one@mycorp.com'), await person(store, 'two@mycorp.com')]
      const claims = await Promise.allSettled(
        [one, two].map((who) => createService(store.db, wanted(who), NOW)),
      )
      assert.deepEqual(claims.map((claim) => claim.status).sort(), ['fulfilled', 'rejected'])
    })
  })

  describe(`${name}: locks`, () => {
    it('hold for the address and for whoever had it, whatever address they get', async () => {
      await using store = await openEmpty()
      const id = await person(store, 'dev@mycorp.com')
      const lock = { email: 'dev@mycorp.com' as EmailAddress, reason: 'x', lockedAt: NOW, lockedBy: id }
      assert.deepEqual(
        (await lockAddress(store.db, { ...lock, until: undefined })).map((found) => found.id),
        [id],
      )
      const find = (who: string, email: string, now = NOW) =>
        findLock(store.db, { id: who, email: email as EmailAddress }, now)
      assert.equal((await find(id, 'renamed@mycorp.com'))?.reason, 'x')
      assert.equal((await find('idn_new', 'dev@mycorp.com'))?.reason, 'x')
      assert.equal(await find('idn_new', 'other@mycorp.com'), undefined)
      await lockAddress(store.db, { ...lock, until: NOW + 10 }) // in place of the first
      assert.equal((await find(id, 'dev@mycorp.com'))?.until, NOW + 10)
      assert.equal((await listLocks(store.db, NOW)).length, 1)
      assert.equal(await find(id, 'dev@mycorp.com', NOW + 10), undefined)
      assert.deepEqual(await listLocks(store.db, NOW + 10), [])
      assert.equal(await unlockAddress(store.db, lock.email), true)
      assert.equal(await unlockAddress(store.db, lock.email), false)
      assert.equal(await find(id, 'dev@mycorp.com'), undefined)
    })
  })

  describe(`${name}: people`, () => {
    it('finds many at once, more than one statement asks for', async () => {
      await using store = await openEmpty()
      const ids = [await person(store, 'one@mycorp.com'), await person(store, 'two@mycorp.com')]
      const unknown = Array.from({ length: 1_200 }, (_, n) => `idn_unknown-${n}`)
      const found = await listIdentities(store.db, [ids[0]!, ...unknown, ids[1]!])
      const expected = await Promise.all(ids.map((id) => findIdentity(store.db, id)))
      assert.deepEqual(found, expected)
      assert.deepEqual(await listIdentities(store.db, []), [])
    })
  })

  describe(`${name}: certificates`, () => {
    it('finds a certificate by serial, an unknown one never', async () => {
      await using store = await openEmpty()
      const certificate = await clientCertificate(store)
      await insertCertificate(store.db, certificate)
      assert.deepEqual(await findCertificate(store.db, certificate.serial), {
        ...certificate,
        renewedBy: undefined,
        revokedAt: undefined,
        revokedReason: undefined,
      })
      assert.equal(await findCertificate(store.db, 'ff'), undefined)
      await assert.rejects(insertCertificate(store.db, certificate), 'a serial is given once')
    })

    it('renews once: the second renewal of the same certificate inserts nothing', async () => {
      await using store = await openEmpty()
      const first = await connectorCertificate(store, '0a')
      await insertCertificate(store.db, first)
      assert.equal(await renewCertificate(store.db, '0a', { ...first, serial: '0b' }), true)
      assert.equal(await renewCertificate(store.db, '0a', { ...first, serial: '0c' }), false)
      assert.equal((await findCertificate(store.db, '0a'))?.renewedBy, '0b')
      assert.equal(await findCertificate(store.db, '0c'), undefined)
    })

    it('revokes a whole lineage, after which nothing of it renews', async () => {
      await using store = await openEmpty()
      const first = await connectorCertificate(store, '0a')
      await insertCertificate(store.db, first)
      await renewCertificate(store.db, '0a', { ...first, serial: '0b' })
      const revocation = { reason: 'superseded', now: NOW + 9 }
      assert.equal(await revokeConnectorLineage(store.db, 'con-1', revocation), 2)
      assert.equal(await revokeConnectorLineage(store.db, 'con-1', { ...revocation, reason: 'other' }), 0)
      assert.equal((await findCertificate(store.db, '0b'))?.revokedReason, 'superseded')
      assert.equal(await renewCertificate(store.db, '0b', { ...first, serial: '0c' }), false)
    })

    it('revokes the certificates of a session and leaves connectors alone', async () => {
      await using store = await openEmpty()
      const certificate = await clientCertificate(store)
      await insertCertificate(store.db, certificate)
      await insertCertificate(store.db, {
        ...certificate,
        serial: '0a',
        kind: 'connector',
        sessionId: undefined,
      })
      const revocation = { reason: 'logout', now: NOW + 9 }
      assert.equal(await revokeSessionCertificates(store.db, certificate.sessionId!, revocation), 1)
      assert.equal((await findCertificate(store.db, certificate.serial))?.revokedAt, NOW + 9)
      assert.equal((await findCertificate(store.db, '0a'))?.revokedAt, undefined)
    })

    it('lists what is refused before its end: revoked, or of a login that has ended', async () => {
      await using store = await openEmpty()
      const certificate = await clientCertificate(store)
      await insertCertificate(store.db, certificate)
      const other = { kind: 'connector', sessionId: undefined, connectorId: 'con_1' } as const
      await insertCertificate(store.db, { ...certificate, ...other, serial: '0a' })
      const list = (kind: 'client' | 'connector', endsAfter = NOW) =>
        listRevokedSerials(store.db, kind, endsAfter)
      assert.deepEqual([await list('client'), await list('connector')], [[], []])
      await revokeConnectorLineage(store.db, 'con_1', { reason: 'revoked', now: NOW + 5 })
      await endSession(store.db, certificate.sessionId!, { reason: 'logout', now: NOW + 6 })
      assert.deepEqual(await list('client'), [
        { serial: certificate.serial, revokedAt: NOW + 6, reason: undefined },
      ])
      assert.deepEqual(await list('connector'), [{ serial: '0a', revokedAt: NOW + 5, reason: 'revoked' }])
      assert.deepEqual(await list('client', certificate.notAfter), [])
    })

    it('keeps those of private services apart: found, listed, and revoked once', async () => {
      await using store = await openEmpty()
      const identityId = (await clientCertificate(store)).identityId
      const facts = { keyHash: 'ab', names: ['db.internal', '10.0.0.5'], identityId }
      const times = { notBefore: NOW, notAfter: NOW + 10, issuedAt: NOW }
      await insertServerCertificate(store.db, { serial: '0a', ...facts, ...times })
      await insertServerCertificate(store.db, { serial: '0b', ...facts, ...times, issuedAt: NOW + 1 })
      assert.deepEqual((await findServerCertificate(store.db, '0a'))?.names, facts.names)
      assert.equal(await findServerCertificate(store.db, '0c'), undefined)
      const revocation = { reason: 'keyCompromise', now: NOW + 2 }
      assert.equal(await revokeServerCertificate(store.db, '0a', revocation), 1)
      assert.equal(await revokeServerCertificate(store.db, '0a', { ...revocation, now: NOW + 3 }), 0)
      assert.deepEqual(await listRevokedServerSerials(store.db, NOW), [
        { serial: '0a', revokedAt: NOW + 2, reason: 'keyCompromise' },
      ])
      assert.deepEqual(await listRevokedServerSerials(store.db, NOW + 10), [])
      const listed = await listServerCertificates(store.db, { endsAfter: NOW, limit: 10 })
      assert.deepEqual(
        listed.map(({ serial, revokedAt }) => [serial, revokedAt]),
        [
          ['0b', undefined],
          ['0a', NOW + 2],
        ],
      )
    })

    it('lists what was issued, of one kind or all, newest first', async () => {
      await using store = await openEmpty()
      const certificate = await clientCertificate(store)
      await insertCertificate(store.db, certificate)
      const other = { kind: 'connector', sessionId: undefined, connectorId: 'con_1' } as const
      const issuedAt = certificate.issuedAt + 1
      await insertCertificate(store.db, { ...certificate, ...other, serial: '0a', issuedAt })
      await revokeConnectorLineage(store.db, 'con_1', { reason: 'revoked', now: NOW + 5 })
      const list = (kind?: 'client' | 'connector', endsAfter = NOW, limit = 10) =>
        listIssuedCertificates(store.db, { kind, endsAfter, limit })
      const [first, second] = await list()
      assert.deepEqual([first?.serial, second?.serial], ['0a', certificate.serial])
      assert.deepEqual([first?.revokedAt, second?.revokedAt], [NOW + 5, undefined])
      assert.equal(second?.label, 'calm-river-17')
      assert.deepEqual(await list('client'), [second])
      assert.deepEqual(await list(undefined, NOW, 1), [first])
      assert.deepEqual(await list(undefined, certificate.notAfter), [])
    })

    it('forgets certificates and their sessions long after they ended', async () => {
      let now = NOW
      await using store = await openEmpty(() => now)
      const certificate = await clientCertificate(store)
      await insertCertificate(store.db, certificate)
      now = NOW + 59 * 86_400_000
      assert.equal(await store.purge(), 0)
      now = NOW + 91 * 86_400_000
      assert.equal(await store.purge(), 2)
      assert.equal(await findCertificate(store.db, certificate.serial), undefined)
    })
  })
}

function wanted(ownerId: string, changes: Partial<NewService> = {}): NewService {
  return {
    label: 'calm-river-17' as ServiceLabel,
    name: 'db',
    type: 'tls',
    ownerId,
    allow: ALLOW,
    ...changes,
  }
}

async function person(store: Store, email: string): Promise<string> {
  return (await upsertIdentity(store.db, account(email), NOW)).id
}

async function clientCertificate(store: Store): Promise<NewCertificate> {
  const identityId = await person(store, 'dev@mycorp.com')
  const service = await createService(store.db, wanted(identityId), NOW)
  const session = await createSession(
    store.db,
    { identityId, grantId: 'g', kind: 'browser', clientAddress: '203.0.113.7', expiresAt: NOW + 1_000 },
    NOW,
  )
  return {
    serial: '4f',
    kind: 'client',
    keyHash: 'ab',
    identityId,
    sessionId: session.id,
    serviceId: service.id,
    connectorId: undefined,
    machine: undefined,
    workload: undefined,
    notBefore: NOW,
    notAfter: NOW + 1,
    issuedAt: NOW,
  }
}

async function connectorCertificate(store: Store, serial: string): Promise<NewCertificate> {
  const client = await clientCertificate(store)
  return {
    ...client,
    serial,
    kind: 'connector',
    sessionId: undefined,
    connectorId: 'con-1',
    machine: 'db-host',
  }
}
