import assert from 'node:assert/strict'
import { test } from 'node:test'
import { startStage } from '../../test/login-stage.ts'
import { createOidcAdapter } from './oidc-adapter.ts'
import type { Sessions } from './sessions.ts'

const NO_SESSIONS = {
  findLive: async () => undefined,
  findByGrant: async () => undefined,
} as unknown as Sessions

test('what was consumed cannot be consumed again, even by two at once', async () => {
  await using stage = await startStage()
  const adapter = createOidcAdapter({ db: stage.store.db, clock: Date.now, sessions: NO_SESSIONS })
  const codes = adapter('AuthorizationCode')
  await codes.upsert('code', { jti: 'code', grantId: 'grant' }, 60)
  const results = await Promise.allSettled([codes.consume('code'), codes.consume('code')])
  assert.deepEqual(results.map((result) => result.status).sort(), ['fulfilled', 'rejected'])
})

test("a browser's session is never kept, and a grant without a live session is not found", async () => {
  await using stage = await startStage()
  const adapter = createOidcAdapter({ db: stage.store.db, clock: Date.now, sessions: NO_SESSIONS })
  await adapter('Session').upsert('id', { jti: 'id', uid: 'uid', accountId: 'somebody' }, 60)
  assert.equal(await adapter('Session').find('id'), undefined)
  assert.equal(await adapter('Session').findByUid('uid'), undefined)
  await adapter('Grant').upsert('grant', { jti: 'grant', accountId: 'somebody' }, 60)
  assert.equal(await adapter('Grant').find('grant'), undefined)
  const rows = await stage.store.db.selectFrom('oidc_records').select('model').execute()
  assert.deepEqual(
    rows.map((row) => row.model),
    ['Grant'],
  )
})
