import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { PosternError } from '@postern/shared/errors'
import { EMPTY_POLICY, type Policy } from '@postern/shared/policy'
import { NOW, type StoreFactory } from './login-suite.ts'
import { DEFAULTS, findPolicies, findPolicy, listPolicyHistory, replacePolicy } from './policies.ts'

const STAFF: Policy = { ...EMPTY_POLICY, allow: [{ groups: ['staff'] }] }
const NONE_AT_NIGHT: Policy = {
  ...EMPTY_POLICY,
  require: { hours: [{ days: ['mon'], from: '08:00', to: '18:00', timeZone: 'UTC' }] },
}

/** Policy documents and their history, on any database. */
export function describePolicies(name: string, openEmpty: StoreFactory): void {
  describe(`${name}: policies`, () => {
    it('reads what nobody wrote as a document that says nothing', async () => {
      await using store = await openEmpty()
      assert.deepEqual(await findPolicy(store.db, DEFAULTS), { policy: EMPTY_POLICY, revision: 0 })
      assert.deepEqual(await findPolicies(store.db, 'svc_1'), {
        defaults: EMPTY_POLICY,
        service: EMPTY_POLICY,
      })
    })

    it('writes documents, each under its own revision, and finds both that decide about a service', async () => {
      await using store = await openEmpty()
      await replacePolicy(store.db, DEFAULTS, { policy: NONE_AT_NIGHT, revision: 0, by: 'idn_1' }, NOW)
      const written = await replacePolicy(
        store.db,
        'svc_1',
        { policy: STAFF, revision: 0, by: 'idn_2' },
        NOW + 1,
      )
      assert.equal(written.before.revision, 0)
      assert.deepEqual(written.after, { policy: STAFF, revision: 1, changedAt: NOW + 1, changedBy: 'idn_2' })
      assert.deepEqual(await findPolicy(store.db, 'svc_1'), written.after)
      assert.deepEqual(await findPolicies(store.db, 'svc_1'), { defaults: NONE_AT_NIGHT, service: STAFF })
      assert.deepEqual(await findPolicies(store.db, 'svc_2'), {
        defaults: NONE_AT_NIGHT,
        service: EMPTY_POLICY,
      })
    })

    it('decides with what is written now, whatever was read before', async () => {
      await using store = await openEmpty()
      const service = async () => (await findPolicies(store.db, 'svc_1')).service
      await replacePolicy(store.db, 'svc_1', { policy: STAFF, revision: 0, by: 'idn_1' }, NOW)
      const first = await service()
      assert.equal(await service(), first) // not read again
      await replacePolicy(store.db, 'svc_1', { policy: NONE_AT_NIGHT, revision: 1, by: 'idn_1' }, NOW)
      assert.deepEqual(await service(), NONE_AT_NIGHT)
      // another life of the same revision, as after a database was restored
      const other = { policy: JSON.stringify(STAFF), changed_at: NOW + 1 }
      await store.db.updateTable('policies').set(other).where('scope', '=', 'svc_1').execute()
      assert.deepEqual(await service(), STAFF)
      await store.db.deleteFrom('policies').where('scope', '=', 'svc_1').execute()
      assert.deepEqual(await service(), EMPTY_POLICY)
    })

    it('refuses a change to another revision than the present one', async () => {
      await using store = await openEmpty()
      const write = (revision: number) =>
        replacePolicy(store.db, 'svc_1', { policy: STAFF, revision, by: 'idn_1' }, NOW)
      await write(0)
      for (const revision of [0, 2]) {
        await assert.rejects(
          write(revision),
          (error: unknown) => error instanceof PosternError && error.code === 'REVISION_CONFLICT',
        )
      }
      assert.equal((await write(1)).after.revision, 2)
    })

    it('lets one of many writers at once win', async () => {
      await using store = await openEmpty()
      const results = await Promise.allSettled(
        Array.from({ length: 8 }, (_, n) =>
          replacePolicy(store.db, 'svc_1', { policy: STAFF, revision: 0, by: `idn_${n}` }, NOW),
        ),
      )
      assert.equal(results.filter(({ status }) => status === 'fulfilled').length, 1)
      assert.equal((await listPolicyHistory(store.db, 'svc_1', 10)).length, 1)
    })

    it('keeps every revision', async () => {
      await using store = await openEmpty()
      await replacePolicy(store.db, 'svc_1', { policy: STAFF, revision: 0, by: 'idn_1' }, NOW)
      await replacePolicy(store.db, 'svc_1', { policy: NONE_AT_NIGHT, revision: 1, by: 'idn_2' }, NOW + 1)
      assert.deepEqual(await listPolicyHistory(store.db, 'svc_1', 10), [
        { policy: NONE_AT_NIGHT, revision: 2, changedAt: NOW + 1, changedBy: 'idn_2' },
        { policy: STAFF, revision: 1, changedAt: NOW, changedBy: 'idn_1' },
      ])
      assert.equal((await listPolicyHistory(store.db, 'svc_1', 1)).length, 1)
    })
  })
}
