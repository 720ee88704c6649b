import * as v from 'valibot'
import { ConnectorCertificateResponse } from './certificates.ts'
import { csrPem, serviceName, timestamp } from './fields.ts'

/** What every enroll token begins with, so that scanners of repositories and logs find one that was left there. */
export const ENROLL_TOKEN_PREFIX = 'postern_enroll_'
/** 256 random bits behind the prefix. */
export const ENROLL_TOKEN_FORM: RegExp = /^postern_enroll_[\w-]{43}$/

/** `POST /v1/services/:ref/enroll-tokens`: a token with which one server becomes a connector of the service. Needs
 *  a session of the service's owner, who is an operator, or of an admin. The answer is the only place where it stands. */
export const MakeEnrollTokenRequest = v.strictObject({
  /** Milliseconds; a day when left out. The edge has a bound. */
  ttlMs: v.optional(v.pipe(v.number(), v.integer(), v.minValue(0))),
})
export const MakeEnrollTokenResponse = v.object({
  token: v.string(),
  id: v.string(),
  expiresAt: timestamp,
  host: v.string(),
  /** Name of the service, which `postern connect` has to give. */
  name: v.string(),
})

/** `DELETE /v1/services/:ref/enroll-tokens`: none of the service's open tokens can be used any more. */
export const CancelEnrollTokensResponse = v.object({ cancelled: v.number() })

/** `POST /v1/connectors/enroll`: no session. The first key that brings the token gets a connector certificate; the
 *  same key may ask again for ten minutes, because its answer may have been lost. */
export const EnrollConnectorRequest = v.strictObject({
  /** @NOTE no other rule here: what breaks one is repeated in the error and in the log */
  token: v.pipe(v.string('is no text'), v.maxLength(256, 'is too long')),
  csr: csrPem,
  machine: v.pipe(v.string(), v.maxLength(255)),
  /** The service that the machine means to serve; a token for another one is refused. */
  name: serviceName,
  label: v.optional(v.pipe(v.string(), v.maxLength(63))),
})
export const EnrollConnectorResponse = v.object({
  ...ConnectorCertificateResponse.entries,
  service: v.object({ id: v.string(), name: v.string(), label: v.string(), host: v.string() }),
})

export type MakeEnrollTokenRequest = v.InferInput<typeof MakeEnrollTokenRequest>
export type MakeEnrollTokenResponse = v.InferOutput<typeof MakeEnrollTokenResponse>
export type CancelEnrollTokensResponse = v.InferOutput<typeof CancelEnrollTokensResponse>
export type EnrollConnectorRequest = v.InferInput<typeof EnrollConnectorRequest>
export type EnrollConnectorResponse = v.InferOutput<typeof EnrollConnectorResponse>
