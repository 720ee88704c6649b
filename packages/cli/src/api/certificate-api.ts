import { X509Certificate } from 'node:crypto'
import {
  ListWorkloadCertificatesResponse,
  RENEW_PATH,
  type WorkloadCertificate,
  type WorkloadCertificateRequest,
  WorkloadCertificateResponse,
  WorkloadCertificateShown,
} from '@postern/shared/api/workloads'
import { PosternError } from '@postern/shared/errors'
import type { Session } from '../credentials/session.ts'
import { type EdgeApi, processAnswer } from './edge-api.ts'
import { createAgent, requestHttps } from './https-request.ts'

/** Certificates of programs that cannot run ours. */

export function issueWorkloadCertificate(
  api: EdgeApi,
  session: Session,
  body: WorkloadCertificateRequest,
): Promise<WorkloadCertificateResponse> {
  const path = '/v1/certificates/workload'
  return api.call(WorkloadCertificateResponse, { method: 'POST', path, session, body })
}

export async function listWorkloadCertificates(
  api: EdgeApi,
  session: Session,
): Promise<WorkloadCertificate[]> {
  const wanted = { method: 'GET', path: '/v1/certificates', session } as const
  return (await api.call(ListWorkloadCertificatesResponse, wanted)).certificates
}

export async function getWorkloadCertificate(
  api: EdgeApi,
  session: Session,
  serial: string,
): Promise<WorkloadCertificate> {
  const wanted = { method: 'GET', path: `/v1/certificates/${encodeURIComponent(serial)}`, session } as const
  return (await api.call(WorkloadCertificateShown, wanted)).certificate
}

/** By the certificate itself, without a session.
 *  @throws CERTIFICATE_EXPIRED · CERTIFICATE_REFUSED · what the edge says */
export async function renewWorkloadCertificate(
  edge: { origin: string; caPem?: string | undefined },
  { key, cert, csr, now }: { key: string; cert: string; csr: string; now: number },
): Promise<WorkloadCertificateResponse> {
  const url = new URL(RENEW_PATH, edge.origin.replace('https://', 'https://mtls.'))
  const agent = createAgent(edge.caPem, { key, cert })
  try {
    const headers = { accept: 'application/json', 'content-type': 'application/pkcs10' }
    const answer = await requestHttps(agent, url, { method: 'POST', headers, body: csr })
    return processAnswer(WorkloadCertificateResponse, answer, `POST ${RENEW_PATH}`)
  } catch (error) {
    throw explainRefusal(error, cert, now)
  } finally {
    agent.destroy()
  }
}

/** An edge that does not take a certificate says nothing, and one that has run out is the most likely one. */
function explainRefusal(error: unknown, cert: string, now: number): unknown {
  if (!(error instanceof PosternError) || error.code !== 'CERTIFICATE_REFUSED') return error
  const hint = 'ask the owner of the service for a new one: postern certificate issue'
  const end = endOf(cert)
  return end !== undefined && end < now
    ? new PosternError('CERTIFICATE_EXPIRED', `the certificate ended on ${new Date(end).toISOString()}`, {
        hint,
      })
    : new PosternError(error.code, error.message, { hint })
}

function endOf(pem: string): number | undefined {
  try {
    return new X509Certificate(pem).validToDate.getTime()
  } catch {
    return undefined
  }
}
