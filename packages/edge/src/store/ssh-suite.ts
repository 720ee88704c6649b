import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import type { ServiceLabel } from '@postern/shared/service-label'
import { revokeConnectorLineage } from './certificates.ts'
import { upsertIdentity } from './identities.ts'
import { account, NOW, type StoreFactory } from './login-suite.ts'
import type { Store } from './open.ts'
import { purgeExpired } from './purge.ts'
import { createService, deleteService, findServiceById, updateService } from './services.ts'
import { createSession, endSession } from './sessions.ts'
import {
  findSshCertificate,
  insertSshCertificate,
  listLiveSshCertificates,
  type NewSshCertificate,
  readKrlVersion,
  readRevokedForSsh,
  revokeSshCertificates,
  revokeSshKeyId,
} from './ssh-certificates.ts'
import { acceptHostKeys, findHostKeys, reportHostKeys } from './ssh-host-keys.ts'

const TTL_MS = 300_000
const REVOKED = { reason: 'revoked', now: NOW + 10 }
const HIGHEST = 2n ** 64n - 1n

/** Certificates for ssh, their revocation, and host keys, on any database. */
export function describeSsh(name: string, openEmpty: StoreFactory): void {
  describe(`${name}: ssh certificates`, () => {
    it('keep all 64 bits of their serial and are found by it', async () => {
      await using store = await openEmpty()
      const { certificate } = await made(store)
      for (const serial of [1n, 2n ** 63n, HIGHEST]) {
        await insertSshCertificate(store.db, certificate(serial))
        const found = await findSshCertificate(store.db, serial)
        assert.deepEqual(found, { ...certificate(serial), revokedAt: undefined, revokedReason: undefined })
      }
      assert.equal(await findSshCertificate(store.db, 2n), undefined)
    })

    it('are revoked by serial, session, person, service and connector, once', async () => {
      await using store = await openEmpty()
      const { certificate, identityId, sessionId, serviceId } = await made(store)
      const host = { kind: 'host' as const, sessionId: undefined, connectorId: 'con_1' }
      let serial = 1n
      for (const filter of [{ identityId }, { sessionId }, { serviceId }, { connectorId: 'con_1' }]) {
        const change = 'connectorId' in filter ? host : {}
        await insertSshCertificate(store.db, { ...certificate(serial), ...change })
        assert.equal(await revokeSshCertificates(store.db, filter, REVOKED), 1, JSON.stringify(filter))
        assert.equal(await revokeSshCertificates(store.db, filter, REVOKED), 0)
        assert.equal((await findSshCertificate(store.db, serial))?.revokedReason, 'revoked')
        serial++
      }
    })

    it('are not revoked any more once they have expired', async () => {
      await using store = await openEmpty()
      const { certificate } = await made(store)
      await insertSshCertificate(store.db, certificate(1n))
      const late = { ...REVOKED, now: NOW + TTL_MS }
      assert.equal(await revokeSshCertificates(store.db, { serial: 1n }, late), 0)
      assert.equal(await readKrlVersion(store.db), 0)
    })

    it('end with their session, their service and their connector', async () => {
      await using store = await openEmpty()
      const { certificate, sessionId, serviceId } = await made(store)
      await insertSshCertificate(store.db, certificate(1n))
      await endSession(store.db, sessionId, { reason: 'logout', now: NOW + 1 })
      const host = { kind: 'host' as const, sessionId: undefined, connectorId: 'con_1' }
      await insertSshCertificate(store.db, { ...certificate(2n), ...host })
      await revokeConnectorLineage(store.db, 'con_1', { reason: 'superseded', now: NOW + 2 })
      await insertSshCertificate(store.db, { ...certificate(3n), ...host })
      await deleteService(store.db, serviceId, NOW + 3)
      const reasons = await Promise.all(
        [1n, 2n, 3n].map(async (serial) => (await findSshCertificate(store.db, serial))?.revokedReason),
      )
      assert.deepEqual(reasons, ['logout', 'superseded', 'service deleted'])
    })

    it('of users that still live are listed by service and person', async () => {
      await using store = await openEmpty()
      const { certificate, identityId, serviceId } = await made(store)
      await insertSshCertificate(store.db, certificate(1n))
      await insertSshCertificate(store.db, { ...certificate(2n), kind: 'host', sessionId: undefined })
      await insertSshCertificate(store.db, certificate(3n))
      await revokeSshCertificates(store.db, { serial: 3n }, REVOKED)
      for (const filter of [{}, { identityId }, { serviceId }]) {
        const found = await listLiveSshCertificates(store.db, filter, NOW)
        assert.deepEqual(
          found.map(({ serial }) => serial),
          [1n],
        )
      }
      assert.deepEqual(await listLiveSshCertificates(store.db, { serviceId }, NOW + TTL_MS), [])
      assert.deepEqual(await listLiveSshCertificates(store.db, { serviceId: 'svc_other' }, NOW), [])
    })
  })

  describe(`${name}: the list of revoked ssh certificates`, () => {
    it('has users and key ids, no hosts, and forgets what is over', async () => {
      await using store = await openEmpty()
      const { certificate } = await made(store)
      for (const serial of [HIGHEST, 10n, 9n]) await insertSshCertificate(store.db, certificate(serial))
      await insertSshCertificate(store.db, { ...certificate(5n), kind: 'host', sessionId: undefined })
      await revokeSshCertificates(store.db, {}, REVOKED)
      await revokeSshKeyId(store.db, 'b@b.co', { until: NOW + 50, now: NOW })
      await revokeSshKeyId(store.db, 'a@b.co', { until: NOW + 20, now: NOW })
      await revokeSshKeyId(store.db, 'a@b.co', { until: NOW + 60, now: NOW })
      const { version, ...lists } = await readRevokedForSsh(store.db, NOW + 40, 0)
      assert.ok(version > NOW + 10)
      assert.deepEqual(lists, {
        serials: [9n, 10n, HIGHEST],
        keyIds: ['a@b.co', 'b@b.co'],
      })
      const later = await readRevokedForSsh(store.db, NOW + TTL_MS, 0)
      assert.deepEqual([later.serials, later.keyIds], [[], []])
      assert.equal((await readRevokedForSsh(store.db, NOW + TTL_MS, 1)).serials.length, 3)
    })

    it('has a version that grows with each change, also when the clock stands or goes back', async () => {
      await using store = await openEmpty()
      const { certificate } = await made(store)
      assert.equal(await readKrlVersion(store.db), 0)
      const versions: number[] = []
      for (const [serial, now] of [NOW, NOW, NOW - 1_000, NOW + 5].entries()) {
        await insertSshCertificate(store.db, certificate(BigInt(serial + 1)))
        await revokeSshCertificates(store.db, { serial: BigInt(serial + 1) }, { reason: 'r', now })
        versions.push(await readKrlVersion(store.db))
      }
      assert.deepEqual(versions, [NOW, NOW + 1, NOW + 2, NOW + 5])
      await revokeSshCertificates(store.db, { serial: 1n }, REVOKED)
      assert.equal(await readKrlVersion(store.db), NOW + 5)
    })

    it('counts every one of many that revoke at once', async () => {
      await using store = await openEmpty()
      const { certificate } = await made(store)
      const serials = Array.from({ length: 20 }, (_, n) => BigInt(n + 1))
      for (const serial of serials) await insertSshCertificate(store.db, certificate(serial))
      await Promise.all(serials.map((serial) => revokeSshCertificates(store.db, { serial }, REVOKED)))
      assert.equal(await readKrlVersion(store.db), REVOKED.now + 19)
    })
  })

  describe(`${name}: host keys`, () => {
    it('are believed first, kept then, and changed by being accepted', async () => {
      await using store = await openEmpty()
      const { serviceId } = await made(store)
      const report = async (...keys: string[]) =>
        (await reportHostKeys(store.db, { serviceId, keys, now: NOW })).report
      assert.equal(await findHostKeys(store.db, serviceId), undefined)
      assert.equal(await acceptHostKeys(store.db, serviceId, NOW), undefined)
      assert.equal(await report('b', 'a', 'b'), 'first')
      assert.equal(await report('a', 'b'), 'same')
      assert.equal(await report('c'), 'changed')
      assert.equal(await report('c'), 'changed again')
      assert.equal(await report('d'), 'changed')
      const record = { serviceId, keys: ['a', 'b'], revision: 1, pending: ['d'], updatedAt: NOW }
      assert.deepEqual(await findHostKeys(store.db, serviceId), record)
      const accepted = await acceptHostKeys(store.db, serviceId, NOW + 1)
      assert.deepEqual(accepted?.before, record)
      assert.deepEqual(await findHostKeys(store.db, serviceId), accepted?.after)
      assert.deepEqual([accepted?.after.keys, accepted?.after.revision], [['d'], 2])
      assert.equal(await acceptHostKeys(store.db, serviceId, NOW), undefined)
      assert.equal(await report('a'), 'changed')
      assert.equal(await report('d'), 'same')
      assert.equal((await findHostKeys(store.db, serviceId))?.pending, undefined)
    })

    it('have one first report, however many come at once', async () => {
      await using store = await openEmpty()
      const { serviceId } = await made(store)
      const reports = await Promise.all(
        Array.from({ length: 8 }, (_, n) =>
          reportHostKeys(store.db, { serviceId, keys: [`k${n}`], now: NOW }),
        ),
      )
      assert.equal(reports.filter(({ report }) => report === 'first').length, 1)
    })
  })

  describe(`${name}: what a service says about its certificates`, () => {
    it('has defaults, and is changed from what stands there', async () => {
      await using store = await openEmpty()
      const { serviceId } = await made(store)
      const read = async () => (await findServiceById(store.db, serviceId))!.ssh
      const defaults = await read()
      assert.equal(defaults.sharedPrincipal, true)
      const add = (principal: string) =>
        updateService(
          store.db,
          serviceId,
          { changeSsh: (before) => ({ ...before, principals: [...before.principals, principal] }) },
          NOW,
        )
      await Promise.all([add('a'), add('b')])
      assert.deepEqual({ ...(await read()), principals: [] }, defaults)
      assert.deepEqual([...(await read()).principals].sort(), ['a', 'b'])
    })

    it('and the certificates are purged two months after their end, before their sessions', async () => {
      await using store = await openEmpty()
      const { certificate } = await made(store)
      await insertSshCertificate(store.db, certificate(1n))
      await revokeSshKeyId(store.db, 'a@b.co', { until: NOW + 1, now: NOW })
      await purgeExpired(store.db, NOW + TTL_MS + 59 * 86_400_000)
      assert.ok(await findSshCertificate(store.db, 1n))
      await purgeExpired(store.db, NOW + 100 * 86_400_000)
      assert.equal(await findSshCertificate(store.db, 1n), undefined)
      assert.deepEqual(await store.db.selectFrom('sessions').selectAll().execute(), [])
      assert.deepEqual(await store.db.selectFrom('ssh_revoked_key_ids').selectAll().execute(), [])
    })
  })
}

async function made(store: Store) {
  const { id: identityId } = await upsertIdentity(store.db, account('a@mycorp.com'), NOW)
  const allow = { emailDomains: ['mycorp.com'], emailAddresses: [], anyAuthenticated: false }
  const label = 'calm-river-17' as ServiceLabel
  const wanted = { label, name: 'ssh', type: 'tls' as const, ownerId: identityId, allow }
  const { id: serviceId } = await createService(store.db, wanted, NOW)
  const login = { grantId: 'g', kind: 'browser' as const, clientAddress: '::1', expiresAt: NOW + TTL_MS }
  const { id: sessionId } = await createSession(store.db, { identityId, ...login }, NOW)
  const certificate = (serial: bigint): NewSshCertificate => ({
    serial,
    kind: 'user',
    fingerprint: 'SHA256:x',
    keyId: 'a@mycorp.com',
    principals: ['a@mycorp.com'],
    identityId,
    sessionId,
    serviceId,
    clientAddress: '127.0.0.1:4',
    connectorId: undefined,
    notBefore: NOW - TTL_MS,
    notAfter: NOW + TTL_MS,
    issuedAt: NOW,
  })
  return { identityId, sessionId, serviceId, certificate }
}
