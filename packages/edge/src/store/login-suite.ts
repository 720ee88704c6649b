import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import type { EmailAddress } from '@postern/shared/email'
import { findIdentity, upsertIdentity, type VerifiedAccount } from './identities.ts'
import {
  consumeOidcRecord,
  destroyOidcRecord,
  findOidcRecord,
  findOidcRecordByUid,
  findOidcRecordByUserCode,
  revokeOidcRecordsByGrant,
  upsertOidcRecord,
} from './oidc-records.ts'
import type { Store } from './open.ts'
import { useOnce } from './replay-guards.ts'
import {
  createSession,
  endSession,
  findSession,
  findSessionByGrant,
  isLive,
  listLiveSessions,
} from './sessions.ts'
import {
  createUpstreamLogin,
  findVerifiedAccount,
  storeVerifiedAccount,
  takeUpstreamLogin,
  takeVerifiedAccount,
} from './upstream-logins.ts'

/** Gives an empty store; the suites close it. */
export type StoreFactory = (clock?: () => number) => Promise<Store>

export const NOW = 1_800_000_000_000

export function account(email: string, subject = email): VerifiedAccount {
  return { issuer: 'https://idp.example.com', subject, email: email as EmailAddress, groups: ['staff'] }
}

/** What login needs of the store, on any database. */
export function describeLoginTables(name: string, openEmpty: StoreFactory): void {
  describe(`${name}: identities`, () => {
    it('keeps the id of (issuer, subject) while email and groups change', async () => {
      await using store = await openEmpty()
      const first = await upsertIdentity(store.db, account('dev@mycorp.com', '17'), NOW)
      const again = await upsertIdentity(
        store.db,
        { ...account('new@mycorp.com', '17'), groups: [] },
        NOW + 1,
      )
      assert.equal(again.id, first.id)
      assert.deepEqual(await findIdentity(store.db, first.id), again)
      assert.deepEqual(again.groups, [])
    })

    it('tells two subjects with one email apart', async () => {
      await using store = await openEmpty()
      const one = await upsertIdentity(store.db, account('dev@mycorp.com', '17'), NOW)
      const two = await upsertIdentity(store.db, account('dev@mycorp.com', '18'), NOW)
      assert.notEqual(one.id, two.id)
      assert.equal(await findIdentity(store.db, 'idn_unknown'), undefined)
    })
  })

  describe(`${name}: sessions`, () => {
    it('finds a session by id and by grant, and lists it while it lives', async () => {
      await using store = await openEmpty()
      const { session, identity } = await signIn(store)
      assert.deepEqual(await findSession(store.db, session.id), session)
      assert.deepEqual(await findSessionByGrant(store.db, 'grant-1'), session)
      assert.deepEqual(await listLiveSessions(store.db, identity.id, NOW), [session])
      assert.deepEqual(await listLiveSessions(store.db, identity.id, session.expiresAt), [])
      assert.equal(isLive(session, session.expiresAt - 1), true)
      assert.equal(isLive(session, session.expiresAt), false)
    })

    it('keeps how the person signed in, or that nothing was said', async () => {
      await using store = await openEmpty()
      const { session, identity } = await signIn(store)
      assert.deepEqual([session.amr, session.acr, session.authTime], [[], undefined, undefined])
      const facts = { kind: 'device' as const, amr: ['pwd', 'otp'], acr: 'urn:ü', authTime: NOW - 1 }
      const where = { identityId: identity.id, grantId: 'grant-2', clientAddress: '::1', expiresAt: NOW + 1 }
      const { id } = await createSession(store.db, { ...where, ...facts }, NOW)
      assert.partialDeepStrictEqual(await findSession(store.db, id), facts)
    })

    it('ends once and keeps the first reason', async () => {
      await using store = await openEmpty()
      const { session, identity } = await signIn(store)
      assert.equal(await endSession(store.db, session.id, { reason: 'logout', now: NOW + 5 }), true)
      assert.equal(await endSession(store.db, session.id, { reason: 'revoked', now: NOW + 6 }), false)
      const ended = await findSession(store.db, session.id)
      assert.equal(ended?.endReason, 'logout')
      assert.equal(ended && isLive(ended, NOW + 5), false)
      assert.deepEqual(await listLiveSessions(store.db, identity.id, NOW), [])
    })
  })

  describe(`${name}: oidc records`, () => {
    const code = { model: 'AuthorizationCode', id: 'code-1-very-secret' }
    const payload = { jti: code.id, accountId: 'idn_1', grantId: 'grant-1' }

    it('gives back what was put in, until it expires', async () => {
      await using store = await openEmpty()
      await upsertOidcRecord(store.db, code, payload, NOW + 60_000)
      assert.deepEqual(await findOidcRecord(store.db, code, NOW), payload)
      assert.equal(await findOidcRecord(store.db, { ...code, model: 'AccessToken' }, NOW), undefined)
      assert.equal(await findOidcRecord(store.db, code, NOW + 60_000), undefined)
    })

    it('keeps no id, cookie or user code in the table', async () => {
      await using store = await openEmpty()
      const secrets = {
        jti: 'secret-a',
        userCode: 'secret-b',
        session: { cookie: 'secret-c' },
        uid: 'secret-d',
      }
      await upsertOidcRecord(store.db, { model: 'Session', id: 'secret-a' }, secrets, undefined)
      const rows = await store.db.selectFrom('oidc_records').selectAll().execute()
      assert.equal(rows.length, 1)
      assert.doesNotMatch(JSON.stringify(rows), /secret/)
    })

    it('finds by uid and by user code', async () => {
      await using store = await openEmpty()
      const session = { jti: 's-1', uid: 'u-1' }
      await upsertOidcRecord(store.db, { model: 'Session', id: 's-1' }, session, NOW + 1)
      assert.deepEqual(await findOidcRecordByUid(store.db, { model: 'Session', uid: 'u-1' }, NOW), session)
      assert.equal(await findOidcRecordByUid(store.db, { model: 'Session', uid: 'u-2' }, NOW), undefined)
      const device = { jti: 'd-1', userCode: 'BCDF' }
      await upsertOidcRecord(store.db, { model: 'DeviceCode', id: 'd-1' }, device, NOW + 1)
      const by = { model: 'DeviceCode', userCode: 'BCDF' }
      assert.deepEqual(await findOidcRecordByUserCode(store.db, by, NOW), device)
      assert.equal(await findOidcRecordByUserCode(store.db, by, NOW + 1), undefined)
    })

    it('lets one of two consume, and remembers it through an update', async () => {
      await using store = await openEmpty()
      await upsertOidcRecord(store.db, code, payload, NOW + 60_000)
      const won = await Promise.all([1, 2].map(() => consumeOidcRecord(store.db, code, NOW)))
      assert.deepEqual(won.sort(), [false, true])
      await upsertOidcRecord(store.db, code, payload, NOW + 60_000)
      const found = await findOidcRecord(store.db, code, NOW)
      assert.equal(found?.consumed, NOW / 1_000)
    })

    it('revokes the tokens of a grant, of every model, and leaves interactions and other grants', async () => {
      await using store = await openEmpty()
      const put = (model: string, id: string, grantId: string) =>
        upsertOidcRecord(store.db, { model, id }, { jti: id, grantId }, undefined)
      await put('AccessToken', 'a', 'grant-1')
      await put('RefreshToken', 'r', 'grant-1')
      await put('Interaction', 'i', 'grant-1')
      await put('AccessToken', 'b', 'grant-2')
      await revokeOidcRecordsByGrant(store.db, 'grant-1')
      const alive = (model: string, id: string) => findOidcRecord(store.db, { model, id }, NOW)
      assert.equal(await alive('AccessToken', 'a'), undefined)
      assert.equal(await alive('RefreshToken', 'r'), undefined)
      assert.ok(await alive('Interaction', 'i'))
      assert.ok(await alive('AccessToken', 'b'))
      await destroyOidcRecord(store.db, { model: 'AccessToken', id: 'b' })
      assert.equal(await alive('AccessToken', 'b'), undefined)
    })
  })

  describe(`${name}: upstream logins`, () => {
    const keys = { state: 'state-1', cookie: 'cookie-1' }
    const login = { interactionUid: 'int-1', codeVerifier: 'v', nonce: 'n', expiresAt: NOW + 600_000 }

    it('goes through its steps once each', async () => {
      await using store = await openEmpty()
      const { db } = store
      await createUpstreamLogin(db, keys, login, NOW)
      assert.equal(
        await storeVerifiedAccount(db, keys.cookie, account('a@b.co'), NOW),
        false,
        'not taken yet',
      )
      assert.deepEqual(await takeUpstreamLogin(db, keys, NOW), login)
      assert.equal(await takeUpstreamLogin(db, keys, NOW), undefined, 'state works once')
      assert.equal(await takeVerifiedAccount(db, keys.cookie, NOW), undefined, 'no account yet')
      assert.equal(await storeVerifiedAccount(db, keys.cookie, account('a@b.co'), NOW), true)
      assert.equal(await storeVerifiedAccount(db, keys.cookie, account('evil@b.co'), NOW), false)
      const done = { login, account: account('a@b.co') }
      assert.deepEqual(await findVerifiedAccount(db, keys.cookie, NOW), done)
      assert.deepEqual(await takeVerifiedAccount(db, keys.cookie, NOW), done)
      assert.equal(await takeVerifiedAccount(db, keys.cookie, NOW), undefined, 'the account is given once')
    })

    it('refuses the cookie of another browser, and leaves the login to its own', async () => {
      await using store = await openEmpty()
      await createUpstreamLogin(store.db, keys, login, NOW)
      assert.equal(await takeUpstreamLogin(store.db, { ...keys, cookie: 'other' }, NOW), undefined)
      assert.deepEqual(await takeUpstreamLogin(store.db, keys, NOW), login)
    })

    it('forgets at its end', async () => {
      await using store = await openEmpty()
      await createUpstreamLogin(store.db, keys, login, NOW)
      assert.equal(await takeUpstreamLogin(store.db, keys, login.expiresAt), undefined)
    })

    it('keeps no state, cookie, verifier or account in the table', async () => {
      await using store = await openEmpty()
      const secret = { ...login, interactionUid: 'secret-uid', codeVerifier: 'secret-verifier' }
      await createUpstreamLogin(store.db, { state: 'secret-state', cookie: 'secret-cookie' }, secret, NOW)
      await takeUpstreamLogin(store.db, { state: 'secret-state', cookie: 'secret-cookie' }, NOW)
      await storeVerifiedAccount(store.db, 'secret-cookie', account('secret@b.co'), NOW)
      const rows = await store.db.selectFrom('upstream_logins').selectAll().execute()
      assert.doesNotMatch(JSON.stringify(rows), /secret-|secret@/)
    })
  })

  describe(`${name}: replay guards`, () => {
    it('says yes once, also to two at the same time', async () => {
      await using store = await openEmpty()
      const uses = await Promise.all([1, 2, 3].map(() => useOnce(store.db, 'dpop:k:jti-1', NOW + 1)))
      assert.deepEqual(uses.filter(Boolean).length, 1)
      assert.equal(await useOnce(store.db, 'dpop:k:jti-2', NOW + 1), true)
    })
  })

  describe(`${name}: purge`, () => {
    it('deletes what expired and leaves the rest', async () => {
      let now = NOW
      await using store = await openEmpty(() => now)
      await upsertOidcRecord(store.db, { model: 'AccessToken', id: 'a' }, {}, NOW + 10)
      await upsertOidcRecord(store.db, { model: 'Grant', id: 'g' }, {}, undefined)
      await useOnce(store.db, 'k', NOW + 10)
      assert.equal(await store.purge(), 0)
      now = NOW + 10
      assert.equal(await store.purge(), 2)
      assert.ok(await findOidcRecord(store.db, { model: 'Grant', id: 'g' }, now))
    })
  })
}

async function signIn(store: Store) {
  const identity = await upsertIdentity(store.db, account('dev@mycorp.com'), NOW)
  const session = await createSession(
    store.db,
    {
      identityId: identity.id,
      grantId: 'grant-1',
      kind: 'browser',
      clientAddress: '203.0.113.7',
      expiresAt: NOW + 1_000,
    },
    NOW,
  )
  return { identity, session }
}
