import assert from 'node:assert/strict'
import { it } from 'node:test'
import { hashSecret, seal, unseal } from './sealed.ts'

it('gives the text back to whoever has the secret, in the same context only', () => {
  const sealed = seal('grüße', 'secret', 'Session')
  assert.equal(unseal(sealed, 'secret', 'Session'), 'grüße')
  assert.throws(() => unseal(sealed, 'other', 'Session'))
  assert.throws(() => unseal(sealed, hashSecret('secret'), 'Session'), 'the stored hash does not open it')
  assert.throws(() => unseal(sealed, 'secret', 'Interaction'))
  assert.notEqual(seal('grüße', 'secret', 'Session'), sealed)
})

it('refuses a changed text', () => {
  const bytes = Buffer.from(seal('grant', 'secret', 'x'), 'base64url')
  bytes[bytes.length - 1]! ^= 1
  assert.throws(() => unseal(bytes.toString('base64url'), 'secret', 'x'))
})
