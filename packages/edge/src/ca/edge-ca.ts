import { type Authority, fingerprintOf, rootOf } from './authorities.ts'
import type { DatedAuthority } from './live-generations.ts'

/** The CA of the edge's own certificate, as clients see it: they believe a root that was named to them once. While a new root
 *  takes over, the old one has signed it too, and this cross-certificate leads from the new to what they believe. */
export interface EdgeCa {
  /** Signs the edge's certificate now. */
  signing: Authority
  /** What the edge shows behind its certificate, in PEM. */
  chainPem: string
  /** Who may be believed, oldest first. */
  roots: readonly EdgeRoot[]
  /** When those before are believed no more. */
  overlapUntil: number | undefined
}

export interface EdgeRoot {
  certificatePem: string
  /** `sha256:HEX` */
  fingerprint: string
  /** The same CA, signed by the root before it. */
  crossPem?: string
}

/** @param trusted oldest first */
export function describeEdgeCa(signing: Authority, trusted: readonly DatedAuthority<Authority>[]): EdgeCa {
  const roots: EdgeRoot[] = []
  for (const { authority } of trusted) {
    const root = { certificatePem: rootOf(authority.certificatePem), fingerprint: fingerprintOf(authority) }
    if (roots.some(({ fingerprint }) => fingerprint === root.fingerprint)) continue // two below the same root
    const isAlone = roots.length === 0 // whoever signed it is believed no more
    const { crossPem } = authority
    roots.push(isAlone || crossPem === undefined ? root : { ...root, crossPem })
  }
  const [overlapUntil] = trusted.flatMap(({ trustedUntil }) => trustedUntil ?? [])
  return { signing, roots, chainPem: chainOf(signing, roots), overlapUntil }
}

/** The cross-certificate comes before the roots: TLS libraries take the first that fits the leaf, and from the new root they
 *  would find no way to the old one. The roots are there for who knows a fingerprint and nothing else. */
function chainOf({ certificatePem }: Authority, roots: readonly EdgeRoot[]): string {
  const root = rootOf(certificatePem)
  const intermediates = certificatePem.slice(0, certificatePem.length - root.length)
  const cross = roots.find((one) => one.certificatePem === root)?.crossPem ?? ''
  return intermediates + cross + roots.map((one) => one.certificatePem).join('')
}
