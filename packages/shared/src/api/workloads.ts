import * as v from 'valibot'
import { IssuedCertificate } from './certificates.ts'
import { csrPem, timestamp } from './fields.ts'

/** Certificates of programs that cannot run ours: stunnel, a script, a sensor. */

/** `POST /v1/certificates/workload`: the first certificate of a lineage, for one service. Needs a session of the
 *  service's owner, who is an operator, or of an admin. */
export const WorkloadCertificateRequest = v.strictObject({
  /** Label or full host of the service. */
  host: v.pipe(v.string(), v.maxLength(253)),
  name: v.pipe(v.string(), v.maxLength(64)),
  csr: csrPem,
  /** Milliseconds that it, and each renewal, is valid; 30 days when left out. The edge has a bound. */
  ttlMs: v.optional(v.pipe(v.number(), v.integer(), v.minValue(0))),
  /** Milliseconds until the last renewal ends; the edge's bound when left out. */
  lifetimeMs: v.optional(v.pipe(v.number(), v.integer(), v.minValue(0))),
})

export const WorkloadCertificateResponse = v.object({
  ...IssuedCertificate.entries,
  /** PEM of the authorities above it, the nearest first. */
  chain: v.string(),
  workloadId: v.string(),
  name: v.string(),
  host: v.string(),
  renewableUntil: timestamp,
  /** Where it renews itself, see `RENEW_PATH`. */
  renewUrl: v.string(),
})

/** `POST https://mtls.<domain>` + this, with the certificate itself. The body is a CSR of a new key, PKCS#10 in PEM; the
 *  answer is JSON, or PEM with the authorities behind the certificate where `Accept` asks for `PEM_CHAIN_MEDIA_TYPE`
 *  (RFC 8555 §9.1). Renewing a certificate that was renewed before revokes the whole lineage, unless it asks for the
 *  same new key again: then the first answer was lost on its way. */
export const RENEW_PATH = '/v1/certificates/renew'
export const PEM_CHAIN_MEDIA_TYPE = 'application/pem-certificate-chain'

export const WorkloadCertificate = v.object({
  serial: v.string(),
  name: v.string(),
  workloadId: v.string(),
  host: v.string(),
  notBefore: timestamp,
  notAfter: timestamp,
  issuedAt: timestamp,
  renewableUntil: timestamp,
  /** Who made the first of the lineage. */
  issuedBy: v.string(),
  /** Serial of the one that took its place. */
  renewedBy: v.optional(v.string()),
  revokedAt: v.optional(timestamp),
  revokedReason: v.optional(v.string()),
  /** Live now, of the whole lineage. */
  flows: v.number(),
})

/** `GET /v1/certificates`: the newest of each lineage; of one's own services, or all for administrators and auditors. */
export const ListWorkloadCertificatesResponse = v.object({ certificates: v.array(WorkloadCertificate) })
/** `GET /v1/certificates/:serial` */
export const WorkloadCertificateShown = v.object({ certificate: WorkloadCertificate })

export type WorkloadCertificateRequest = v.InferInput<typeof WorkloadCertificateRequest>
export type WorkloadCertificateResponse = v.InferOutput<typeof WorkloadCertificateResponse>
export type WorkloadCertificate = v.InferOutput<typeof WorkloadCertificate>
export type ListWorkloadCertificatesResponse = v.InferOutput<typeof ListWorkloadCertificatesResponse>
export type WorkloadCertificateShown = v.InferOutput<typeof WorkloadCertificateShown>
