import assert from 'node:assert/strict'
import { test } from 'node:test'
import { contextOf } from './context.ts'

const SESSION = { kind: 'browser' as const, createdAt: 5, amr: [], acr: undefined }

test('what the provider did not say of a sign-in is unknown, not empty', () => {
  const { amr, acr, signedInAt, sessionKind } = contextOf(SESSION, '203.0.113.7:5044')
  assert.deepEqual([amr, acr, signedInAt, sessionKind], [undefined, undefined, 5, 'browser'])
  const said = contextOf({ ...SESSION, amr: ['otp'], acr: 'high' }, '[2001:db8::1]:5044')
  assert.deepEqual([said.amr, said.acr, said.sourceAddress], [['otp'], 'high', '2001:db8::1'])
})
