import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isFreshNonce, nextNonce } from './dpop-nonce.ts'

const SECRET = Buffer.alloc(32, 7)
const NOW = 1_800_000_000_000

test('a nonce is accepted for three minutes at least and five at most', () => {
  const nonce = nextNonce(SECRET, NOW)
  for (const laterMs of [0, 60_000, 180_000])
    assert.ok(isFreshNonce(SECRET, nonce, NOW + laterMs), `${laterMs}`)
  assert.ok(!isFreshNonce(SECRET, nonce, NOW + 300_000))
  assert.ok(!isFreshNonce(SECRET, nonce, NOW - 300_000))
})

test('a nonce of another edge is not accepted', () => {
  assert.ok(!isFreshNonce(SECRET, nextNonce(Buffer.alloc(32, 8), NOW), NOW))
})

test('nonces are those of the library, so that one serves both', async () => {
  const { default: ServerChallenge } = await import('oidc-provider/lib/helpers/challenge.js' as string)
  const theirs = new ServerChallenge(SECRET, 'DPoP')
  const now = Date.now()
  assert.ok(theirs.checkChallenge(nextNonce(SECRET, now)))
  assert.ok(isFreshNonce(SECRET, theirs.nextChallenge(), now))
})
