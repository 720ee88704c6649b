import path from 'node:path'
import type { ServiceLabel } from '@postern/shared/service-label'
import { edgeNow, type KnownEdge } from './known-edge.ts'
import { readStateFile, removeState, type ShapeValue, writeStateFile } from './state-file.ts'

/** Client certificates, one file per service. A certificate is a ticket for one service and a few minutes. */
const CERTIFICATE_SHAPE = {
  keyPem: 'string',
  certificatePem: 'string',
  /** Epoch milliseconds by the edge's clock. */
  notAfter: 'number',
  serviceId: 'string',
} as const

export type ClientCertificate = ShapeValue<typeof CERTIFICATE_SHAPE>

/** A certificate this close to its end is not started with: the handshake takes time and clocks differ. */
const MARGIN_MS = 30_000

/** @returns undefined when there is none or it ends within 30 seconds of the edge's clock */
export function readCertificate(
  edge: KnownEdge,
  label: ServiceLabel,
  now: number = edgeNow(edge),
): ClientCertificate | undefined {
  const certificate = readStateFile(certificateFile(edge, label), CERTIFICATE_SHAPE)
  return certificate && certificate.notAfter - MARGIN_MS > now ? certificate : undefined
}

export function saveCertificate(edge: KnownEdge, label: ServiceLabel, certificate: ClientCertificate): void {
  writeStateFile(certificateFile(edge, label), certificate)
}

export function forgetCertificate(edge: KnownEdge, label: ServiceLabel): void {
  removeState(certificateFile(edge, label))
}

export function forgetCertificates(edge: Pick<KnownEdge, 'folder'>): void {
  removeState(path.join(edge.folder, 'certificates'))
}

function certificateFile(edge: KnownEdge, label: ServiceLabel): string {
  return path.join(edge.folder, 'certificates', `${label}.json`)
}
