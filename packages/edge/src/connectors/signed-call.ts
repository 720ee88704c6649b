/** Calls of a connector outside of its control connection: signed by the key of its certificate, each good once. */
import { createPublicKey, type JsonWebKey } from 'node:crypto'
import { formatDuration } from '@postern/shared/duration'
import { PosternError } from '@postern/shared/errors'
import { compactVerify, EmbeddedJWK, errors } from 'jose'
import type { Kysely } from 'kysely'
import * as v from 'valibot'
import { spkiHash } from '../ca/public-key.ts'
import { type CertificateRecord, findCertificate } from '../store/certificates.ts'
import { useOnce } from '../store/replay-guards.ts'
import type { Database } from '../store/schema.ts'

export const CLOCK_TOLERANCE_MS = 60_000

interface Claims {
  aud: string
  iat: number
  jti: string
  serial: string
}

/** What a kind of call is called, and what it says. */
export interface CallKind<T extends Claims> {
  /** For messages: `renewal`. */
  name: string
  /** `typ` of the protected header. */
  type: string
  schema: v.GenericSchema<unknown, T>
}

export interface CallParts {
  db: Kysely<Database>
  clock: () => number
  origin: () => string
}

/** Reads a call and finds the certificate whose key has signed it. Whether that is still good is not asked here.
 *  @throws CERTIFICATE_REFUSED malformed, another edge, unknown, wrong key, used before · CLOCK_OFF */
export async function readSignedCall<T extends Claims>(
  jws: string,
  kind: CallKind<T>,
  { db, clock, origin }: CallParts,
): Promise<{ claims: T; certificate: CertificateRecord & { connectorId: string } }> {
  const refuse = (why: string, cause?: unknown) =>
    new PosternError('CERTIFICATE_REFUSED', `the ${kind.name} request ${why}`, { cause })
  const verified = await compactVerify(jws, EmbeddedJWK, { algorithms: ['ES256'] }).catch(
    (cause: unknown) => {
      throw refuse(
        cause instanceof errors.JOSEError ? 'is not signed by the key it names' : 'cannot be read',
        cause,
      )
    },
  )
  if (verified.protectedHeader.typ !== kind.type) throw refuse('is another kind of token')
  const parsed = v.safeParse(kind.schema, parseJson(verified.payload))
  if (!parsed.success) throw refuse('is malformed')
  const claims = parsed.output
  if (claims.aud !== origin()) throw refuse('is for another edge')
  refuseOtherTime(claims.iat * 1_000 - clock())
  const publicKey = createPublicKey({ key: verified.protectedHeader.jwk as JsonWebKey, format: 'jwk' })
  const certificate = await findCertificate(db, claims.serial)
  const { connectorId } = certificate ?? {}
  if (certificate?.kind !== 'connector' || !connectorId || certificate.keyHash !== spkiHash(publicKey)) {
    throw new PosternError('CERTIFICATE_REFUSED', `the certificate of the ${kind.name} is not known here`)
  }
  const isNew = await useOnce(
    db,
    `${kind.name}:${claims.serial}:${claims.jti}`,
    clock() + 2 * CLOCK_TOLERANCE_MS,
  )
  if (!isNew) throw new PosternError('CERTIFICATE_REFUSED', `this ${kind.name} was used before`)
  return { claims, certificate: { ...certificate, connectorId } }
}

function refuseOtherTime(offsetMs: number): void {
  if (Math.abs(offsetMs) <= CLOCK_TOLERANCE_MS) return
  const side = offsetMs < 0 ? 'behind' : 'ahead of'
  throw new PosternError(
    'CLOCK_OFF',
    `this machine's clock is ${formatDuration(offsetMs)} ${side} the edge's`,
    { details: { offsetMs } },
  )
}

function parseJson(bytes: Uint8Array): unknown {
  try {
    return JSON.parse(Buffer.from(bytes).toString('utf8'))
  } catch {
    return undefined
  }
}
