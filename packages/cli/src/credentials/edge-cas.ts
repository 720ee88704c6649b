import { X509Certificate } from 'node:crypto'
import type { EdgeApi } from '../api/edge-api.ts'
import type { KnownEdge } from './known-edge.ts'

/** The CAs of an edge as a machine keeps them that pins them: PEM, oldest first. Whether there are others by now; which, is
 *  loaded when it is needed. */

/** Call after an answer of the edge. */
export async function followCas(edge: KnownEdge, api: EdgeApi): Promise<void> {
  if (!namesOthers(edge, api)) return
  const { followNamedCas } = await import('./follow-cas.ts')
  await followNamedCas(edge, api)
}

/** Whether the last answer named others than are believed here. */
export function namesOthers({ caPem }: { caPem?: string | undefined }, { toldCas }: EdgeApi): boolean {
  return caPem !== undefined && toldCas !== undefined && toldCas !== fingerprintsOf(caPem)
}

export function readCertificates(caPem: string): X509Certificate[] {
  const pems = caPem.match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g) ?? []
  return pems.map((pem) => new X509Certificate(pem))
}

/** As `--ca-fingerprint` takes it. */
export function fingerprintOf({ fingerprint256 }: X509Certificate): string {
  return `sha256:${fingerprint256.replaceAll(':', '').toLowerCase()}`
}

/** As the edge names them, see EDGE_CAS_HEADER. */
export function fingerprintsOf(caPem: string): string {
  return readCertificates(caPem).map(fingerprintOf).join(' ')
}

/** The one that stays. */
export function newestCa(caPem: string): X509Certificate {
  return readCertificates(caPem).at(-1) ?? new X509Certificate(caPem)
}
