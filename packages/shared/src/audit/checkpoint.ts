import { createPublicKey, type KeyObject, sign, verify } from 'node:crypto'
import * as v from 'valibot'

/** Signed statements about how far an audit log has come: kept elsewhere, they show later whether its end was cut
 *  off or it was written anew. */

/** Ed25519, as people copy it: `ed25519:` and 32 bytes in base64. */
const Signer = v.pipe(v.string(), v.regex(/^ed25519:[A-Za-z0-9+/]{43}=$/, 'is not ed25519: with a key'))
const Hash = v.pipe(v.string(), v.regex(/^[0-9a-f]{64}$/, 'is not a hash'))
const Whole = v.pipe(v.number(), v.safeInteger(), v.minValue(0))

export const Checkpoint = v.strictObject({
  chain: v.pipe(v.string(), v.regex(/^[\w-]{1,64}$/, 'is not the name of a chain')),
  /** Of the last record that it covers. */
  position: Whole,
  /** The hash of that record, which has all before it in its own. */
  hash: Hash,
  at: Whole,
  signer: Signer,
  signature: v.pipe(v.string(), v.regex(/^[A-Za-z0-9+/]{86}==$/, 'is not a signature')),
})
export type Checkpoint = v.InferOutput<typeof Checkpoint>

export function signCheckpoint(
  facts: Pick<Checkpoint, 'chain' | 'position' | 'hash' | 'at'>,
  key: KeyObject,
): Checkpoint {
  const signature = sign(null, textOf(facts), key).toString('base64')
  return { ...facts, signer: formatSigner(key), signature }
}

/** Whether the key that it names has signed it; whose key that is, the reader has to know. */
export function isSignedCheckpoint(checkpoint: Checkpoint): boolean {
  const signature = Buffer.from(checkpoint.signature, 'base64')
  return verify(null, textOf(checkpoint), toPublicKey(checkpoint.signer), signature)
}

/** @param key Ed25519, private or public */
export function formatSigner(key: KeyObject): string {
  const { x } = (key.type === 'private' ? createPublicKey(key) : key).export({ format: 'jwk' })
  return `ed25519:${Buffer.from(x!, 'base64url').toString('base64')}`
}

/** @throws Error whose message goes on after the text */
export function parseSigner(text: string): string {
  const result = v.safeParse(Signer, text.trim())
  if (!result.success) throw new Error('is not a key as postern-edge audit key prints it: ed25519:…')
  return result.output
}

/** Out of whatever it was kept in: itself, a line of an export or of `audit list --json`, a line of the edge's log.
 *  @returns undefined when there is none in it */
export function findCheckpoint(value: unknown): Checkpoint | undefined {
  const { event, checkpoint } = (value ?? {}) as { event?: { checkpoint?: unknown }; checkpoint?: unknown }
  for (const candidate of [checkpoint, event?.checkpoint, value]) {
    const result = v.safeParse(Checkpoint, candidate)
    if (result.success) return result.output
  }
  return undefined
}

function textOf({
  chain,
  position,
  hash,
  at,
}: Pick<Checkpoint, 'chain' | 'position' | 'hash' | 'at'>): Buffer {
  return Buffer.from(['postern-audit-checkpoint/1', chain, position, hash, at].join('\n'))
}

function toPublicKey(signer: string): KeyObject {
  const x = Buffer.from(signer.slice('ed25519:'.length), 'base64').toString('base64url')
  return createPublicKey({ key: { kty: 'OKP', crv: 'Ed25519', x }, format: 'jwk' })
}
