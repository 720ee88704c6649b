import type { KeyObject } from 'node:crypto'
import type { WorkloadName } from '@postern/shared/workload-name'
import type { Authority } from './authorities.ts'
import { requireKind } from './issue-client.ts'
import { type IssuedLeaf, printedName, signLeaf } from './leaf.ts'

export interface WorkloadSubject {
  domain: string
  serviceId: string
  name: WorkloadName
}

export interface WorkloadCertificateRequest extends WorkloadSubject {
  publicKey: KeyObject
  /** Epoch milliseconds. */
  notAfter: number
  backdateMs: number
}

/** A certificate of a program that cannot run ours: for one service, and for weeks. */
export async function issueWorkloadCertificate(
  authority: Authority,
  request: WorkloadCertificateRequest,
  now: number,
): Promise<IssuedLeaf> {
  requireKind(authority, 'workload')
  return signLeaf(authority, {
    commonName: request.name,
    usage: 'clientAuth',
    names: [{ type: 'url', value: workloadUri(request) }],
    publicKey: request.publicKey,
    notBefore: now - request.backdateMs,
    notAfter: request.notAfter,
  })
}

/** What Node says in `subjectAltName` of exactly this certificate. Compare with ===, never parse. */
export function workloadSubjectAltName(subject: WorkloadSubject): string {
  return printedName('URI', workloadUri(subject))
}

function workloadUri({ domain, serviceId, name }: WorkloadSubject): string {
  return `postern://${domain}/service/${serviceId}/workload/${name}`
}
