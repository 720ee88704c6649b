import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import type { ServiceLabel } from '@postern/shared/service-label'
import {
  findCertificate,
  type NewCertificate,
  renewCertificate,
  revokeConnectorLineage,
} from './certificates.ts'
import {
  cancelEnrollTokens,
  countOpenEnrollTokens,
  createEnrollToken,
  type EnrollToken,
  findEnrollToken,
  useEnrollToken,
} from './enroll-tokens.ts'
import { upsertIdentity } from './identities.ts'
import { account, NOW, type StoreFactory } from './login-suite.ts'
import type { Store } from './open.ts'
import { createService, deleteService } from './services.ts'

const TOKEN = 'postern_enroll_canary'
const DAY_MS = 86_400_000
const MANY = Array.from({ length: 20 }, (_, index) => index)
const AT = { now: NOW + 1, answerableMs: 1_000 }

/** Enroll tokens, on any database. */
export function describeEnrollTokens(name: string, openEmpty: StoreFactory): void {
  describe(`${name}: enroll tokens`, () => {
    it('are found by the token, which is not kept', async () => {
      await using store = await openEmpty()
      const { token, serviceId, ownerId } = await made(store)
      assert.deepEqual(await findEnrollToken(store.db, TOKEN), token)
      assert.deepEqual([token.serviceId, token.createdBy], [serviceId, ownerId])
      assert.equal(await findEnrollToken(store.db, `${TOKEN}x`), undefined)
      const rows = await store.db.selectFrom('enroll_tokens').selectAll().execute()
      assert.doesNotMatch(JSON.stringify(rows), /canary/)
    })

    it('work once, with the certificate; the same key is answered again for a while', async () => {
      await using store = await openEmpty()
      const { token, certificate } = await made(store)
      assert.equal(await useEnrollToken(store.db, token.id, certificate('a1', 'key'), AT), 'first')
      assert.ok(await findCertificate(store.db, 'a1'))
      assert.equal(await useEnrollToken(store.db, token.id, certificate('a2', 'other'), AT), 'refused')
      assert.equal(await findCertificate(store.db, 'a2'), undefined)
      const soon = { ...AT, now: AT.now + 999 }
      assert.equal(await useEnrollToken(store.db, token.id, certificate('a3', 'key'), soon), 'again')
      const late = { ...AT, now: AT.now + 1_000 }
      assert.equal(await useEnrollToken(store.db, token.id, certificate('a4', 'key'), late), 'refused')
      const found = await findEnrollToken(store.db, TOKEN)
      assert.deepEqual([found?.usedAt, found?.keyHash], [AT.now, 'key'])
    })

    it('give no second answer to who has renewed, or was revoked', async () => {
      for (const touch of [
        (store: Store, first: NewCertificate) => renewCertificate(store.db, 'a1', { ...first, serial: 'b1' }),
        (store: Store, first: NewCertificate) =>
          revokeConnectorLineage(store.db, first.connectorId!, { reason: 'superseded', now: NOW }),
      ]) {
        await using store = await openEmpty()
        const { token, certificate } = await made(store)
        const first = certificate('a1', 'key')
        await useEnrollToken(store.db, token.id, first, AT)
        await touch(store, first)
        assert.equal(await useEnrollToken(store.db, token.id, certificate('a2', 'key'), AT), 'refused')
      }
    })

    it('end at their time, and are deleted a week later', async () => {
      let now = NOW
      await using store = await openEmpty(() => now)
      const { token, certificate, serviceId } = await made(store)
      const { expiresAt } = token
      assert.equal(await countOpenEnrollTokens(store.db, serviceId, expiresAt - 1), 1)
      assert.equal(await countOpenEnrollTokens(store.db, serviceId, expiresAt), 0)
      const ended = { ...AT, now: expiresAt }
      assert.equal(await useEnrollToken(store.db, token.id, certificate('a1', 'key'), ended), 'refused')
      now = expiresAt + 7 * DAY_MS - 1
      assert.equal(await store.purge(), 0)
      now += 1
      assert.equal(await store.purge(), 1)
      assert.equal(await findEnrollToken(store.db, TOKEN), undefined)
    })

    it('are cancelled, open ones only', async () => {
      await using store = await openEmpty()
      const { token, certificate, serviceId, wanted } = await made(store)
      await useEnrollToken(store.db, token.id, certificate('a1', 'key'), AT)
      const second = { ...wanted, token: 'second' }
      assert.ok(await createEnrollToken(store.db, second, { now: NOW, maxOpen: 1 }), 'used ones do not count')
      assert.equal(
        await createEnrollToken(store.db, { ...wanted, token: 'third' }, { now: NOW, maxOpen: 1 }),
        undefined,
      )
      assert.equal(await cancelEnrollTokens(store.db, serviceId, NOW + 1), 1)
      assert.equal(await findEnrollToken(store.db, 'second'), undefined)
      assert.ok(await findEnrollToken(store.db, TOKEN))
    })

    it('go with their service, and none is made for one that is gone', async () => {
      await using store = await openEmpty()
      const { token, certificate, serviceId, wanted } = await made(store)
      await deleteService(store.db, serviceId, NOW + 1)
      assert.equal(await findEnrollToken(store.db, TOKEN), undefined)
      assert.equal(await useEnrollToken(store.db, token.id, certificate('a1', 'key'), AT), 'refused')
      assert.equal(await createEnrollToken(store.db, wanted, { now: NOW, maxOpen: 9 }), undefined)
    })

    it('twenty keys at once: one gets the certificate', async () => {
      await using store = await openEmpty()
      const { token, certificate } = await made(store)
      const outcomes = await Promise.all(
        MANY.map((n) => useEnrollToken(store.db, token.id, certificate(`a${n}`, `key-${n}`), AT)),
      )
      assert.deepEqual(
        outcomes.filter((outcome) => outcome !== 'refused'),
        ['first'],
      )
      assert.equal((await store.db.selectFrom('certificates').select('serial').execute()).length, 1)
    })

    it('twenty are made at once, with room for three: three are', async () => {
      await using store = await openEmpty()
      const { serviceId, wanted } = await made(store)
      await cancelEnrollTokens(store.db, serviceId, NOW)
      const tries = MANY.map((n) =>
        createEnrollToken(store.db, { ...wanted, token: `t${n}` }, { now: NOW, maxOpen: 3 }),
      )
      assert.equal((await Promise.all(tries)).filter(Boolean).length, 3)
    })
  })
}

interface Made {
  token: EnrollToken
  serviceId: string
  ownerId: string
  wanted: Parameters<typeof createEnrollToken>[1]
  certificate(serial: string, keyHash: string): NewCertificate
}

async function made(store: Store): Promise<Made> {
  const { id: ownerId } = await upsertIdentity(store.db, account('op@mycorp.com'), NOW)
  const allow = { emailDomains: ['mycorp.com'], emailAddresses: [], anyAuthenticated: false }
  const label = 'calm-river-17' as ServiceLabel
  const service = await createService(store.db, { label, name: 'db', type: 'tls', ownerId, allow }, NOW)
  const wanted = { token: TOKEN, serviceId: service.id, createdBy: ownerId, expiresAt: NOW + DAY_MS }
  const token = (await createEnrollToken(store.db, wanted, { now: NOW, maxOpen: 9 }))!
  const certificate = (serial: string, keyHash: string): NewCertificate => ({
    serial,
    kind: 'connector',
    keyHash,
    identityId: ownerId,
    sessionId: undefined,
    serviceId: service.id,
    connectorId: token.connectorId,
    machine: 'build-7',
    notBefore: NOW,
    notAfter: NOW + 30 * DAY_MS,
    issuedAt: NOW,
  })
  return { token, serviceId: service.id, ownerId, wanted, certificate }
}
