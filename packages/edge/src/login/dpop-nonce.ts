import { hkdfSync, timingSafeEqual } from 'node:crypto'

/** Server nonces for DPoP (RFC 9449 §8): they prove that a proof is fresh whatever the client's clock says.
 *  Derived from a secret and the minute, never stored. Made exactly as oidc-provider makes its own
 *  (lib/helpers/challenge.js), so that a nonce from the token endpoint serves the API too and the other way
 *  round: clients keep one nonce per origin. Should the library change, a client pays one round trip more. */

const STEP_MS = 60_000

/** The newest nonce; accepted for at least three minutes from now. */
export function nextNonce(secret: Buffer, now: number): string {
  return nonceOf(secret, Math.floor(now / STEP_MS) + 1)
}

export function isFreshNonce(secret: Buffer, nonce: string, now: number): boolean {
  const step = Math.floor(now / STEP_MS)
  return [step - 2, step - 1, step, step + 1, step + 2].some((at) => same(nonceOf(secret, at), nonce))
}

/** Of each secret the nonces around now: every request asks for six of them. */
const derived = new WeakMap<Buffer, Map<number, string>>()
const MAX_DERIVED = 8

function nonceOf(secret: Buffer, step: number): string {
  const known = derived.get(secret) ?? new Map<number, string>()
  derived.set(secret, known)
  const nonce = known.get(step) ?? derive(secret, step)
  known.set(step, nonce)
  if (known.size > MAX_DERIVED) known.delete(known.keys().next().value!)
  return nonce
}

function derive(secret: Buffer, step: number): string {
  const salt = Buffer.alloc(8)
  salt.writeBigUInt64BE(BigInt(step))
  return Buffer.from(hkdfSync('sha256', secret, salt, 'DPoP', 32)).toString('base64url')
}

function same(a: string, b: string): boolean {
  const left = Buffer.from(a)
  const right = Buffer.from(b)
  return left.length === right.length && timingSafeEqual(left, right)
}
