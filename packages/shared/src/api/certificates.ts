import * as v from 'valibot'
import { csrPem, timestamp } from './fields.ts'

/** `POST /v1/certificates/client`: a client TLS certificate for one service. Needs a session whose identity
 *  the service admits now. */
export const ClientCertificateRequest = v.strictObject({
  /** Label or full host of the service. */
  host: v.pipe(v.string(), v.maxLength(253)),
  csr: csrPem,
})

export const IssuedCertificate = v.object({
  /** PEM, leaf only. */
  certificate: v.string(),
  serial: v.string(),
  notBefore: timestamp,
  notAfter: timestamp,
})

export const ClientCertificateResponse = v.object({ ...IssuedCertificate.entries, serviceId: v.string() })

/** `POST /v1/connectors`: a connector certificate for one of the caller's own services. Needs a session of an
 *  operator. Every call registers a new process. */
export const ConnectorCertificateRequest = v.strictObject({
  serviceId: v.pipe(v.string(), v.maxLength(64)),
  csr: csrPem,
  /** For people: the machine's host name. */
  machine: v.pipe(v.string(), v.maxLength(255)),
})

/** `POST /v1/connectors/renew`: no session; the request is a compact JWS (RFC 7515) signed ES256 by the key of
 *  the certificate that is renewed, with `typ: postern-renew+jwt` and that public key as `jwk` in its protected
 *  header (the edge keeps only the key's hash), and these claims. Accepted up to 30 days after expiry. Renewing a
 *  certificate that was renewed before revokes the whole lineage, unless it asks for the same new key again: then
 *  the first answer was lost on its way. */
export const RenewConnectorRequest = v.strictObject({ jws: v.pipe(v.string(), v.maxLength(16_384)) })
export const RENEW_JWS_TYPE = 'postern-renew+jwt'
export const RenewConnectorClaims = v.object({
  /** The edge's origin, `https://edge.example.com:8443`. */
  aud: v.string(),
  /** Seconds since 1970; at most 60 s away from the edge's clock. */
  iat: v.number(),
  jti: v.pipe(v.string(), v.minLength(16), v.maxLength(128)),
  /** Serial of the certificate that is renewed, lower-case hex. */
  serial: v.string(),
  /** CSR of the new key. */
  csr: csrPem,
})

export const ConnectorCertificateResponse = v.object({
  ...IssuedCertificate.entries,
  connectorId: v.string(),
})

export type ClientCertificateRequest = v.InferInput<typeof ClientCertificateRequest>
export type ClientCertificateResponse = v.InferOutput<typeof ClientCertificateResponse>
export type ConnectorCertificateRequest = v.InferInput<typeof ConnectorCertificateRequest>
export type ConnectorCertificateResponse = v.InferOutput<typeof ConnectorCertificateResponse>
export type RenewConnectorClaims = v.InferOutput<typeof RenewConnectorClaims>
export type IssuedCertificate = v.InferOutput<typeof IssuedCertificate>
