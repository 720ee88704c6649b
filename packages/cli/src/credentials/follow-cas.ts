import { X509Certificate } from 'node:crypto'
import type { EdgeAuthority } from '@postern/shared/api/session'
import { PosternError } from '@postern/shared/errors'
import type { EdgeApi } from '../api/edge-api.ts'
import { tell } from '../io.ts'
import { fingerprintOf, fingerprintsOf, namesOthers, readCertificates } from './edge-cas.ts'
import { type KnownEdge, readEdgeFolder, reloadCas, saveEdgeFolder } from './known-edge.ts'

/** How a machine that pins the CA of an edge comes to believe the next one: the edge says in every answer which CAs it may be
 *  known by, and has each new one signed by the one before. What the edge says is not enough, the signature is. */

/** Whatever is wrong leaves things as they are: what was asked for is not to fail by it. */
export async function followNamedCas(edge: KnownEdge, api: EdgeApi): Promise<void> {
  const caPem = await findNextCas(edge, api)
  if (caPem === undefined) return
  try {
    keepCas(edge, caPem)
  } catch (error) {
    tell(`warning: the CA of ${edge.origin} is another one and cannot be kept: ${(error as Error).message}`)
  }
}

/** Those that may be believed instead, when the last answer named others than these. Never throws.
 *  @returns PEM, oldest first */
export async function findNextCas(
  edge: { origin: string; caPem?: string | undefined },
  api: EdgeApi,
): Promise<string | undefined> {
  const { origin, caPem } = edge
  if (caPem === undefined || !namesOthers(edge, api)) return undefined
  try {
    const { authorities = [] } = await api.getEdge()
    const next = acceptCas(caPem, authorities, api.now())
    return fingerprintsOf(next) === fingerprintsOf(caPem) ? undefined : next
  } catch (error) {
    // an edge that is away is asked again with the next renewal
    if (error instanceof PosternError && error.code === 'EDGE_UNTRUSTED') {
      tell(`warning: the CA of ${origin} stays as it is: ${error.message}`)
    }
    return undefined
  }
}

/** Of those that the edge names, the ones that are pinned or whom a pinned one has signed.
 *  @param now epoch milliseconds
 *  @returns PEM, oldest first
 *  @throws EDGE_UNTRUSTED one that comes after a pinned one was not signed by it; or none is pinned */
export function acceptCas(pinnedPem: string, offered: readonly EdgeAuthority[], now: number): string {
  const pinned = readCertificates(pinnedPem)
  const believed: X509Certificate[] = []
  for (const { certificate, crossCertificate } of offered) {
    const root = readOffered(certificate)
    const cross = crossCertificate === undefined ? undefined : readOffered(crossCertificate)
    const isPinned = pinned.some(({ raw }) => raw.equals(root.raw))
    if (isPinned || (cross && leadsTo(root, { cross, issuers: [...pinned, ...believed], now }))) {
      believed.push(root)
    } else if (believed.length > 0) {
      throw notBelieved(`the CA ${fingerprintOf(root)} was not signed by the one before it`)
    } // an older one: who began with its successor never needs it
  }
  if (believed.length === 0) throw notBelieved('none of the CAs that it names is known here')
  return believed.map(String).join('')
}

function leadsTo(
  root: X509Certificate,
  { cross, issuers, now }: { cross: X509Certificate; issuers: X509Certificate[]; now: number },
): boolean {
  const isCaNow = (one: X509Certificate) =>
    one.ca && one.validFromDate.getTime() <= now && now < one.validToDate.getTime()
  return (
    isCaNow(root) &&
    isSignedBy(root, root) &&
    isCaNow(cross) &&
    cross.subject === root.subject &&
    cross.publicKey.equals(root.publicKey) &&
    issuers.some((issuer) => isCaNow(issuer) && isSignedBy(cross, issuer))
  )
}

function isSignedBy(certificate: X509Certificate, issuer: X509Certificate): boolean {
  return certificate.checkIssued(issuer) && certificate.verify(issuer.publicKey)
}

function readOffered(pem: string): X509Certificate {
  try {
    const certificate = new X509Certificate(pem)
    if (certificate.publicKey.type !== 'public') throw new Error('it has no key') // read here: it throws
    return certificate
  } catch (cause) {
    throw notBelieved('one of the CAs that it names cannot be read', cause)
  }
}

function notBelieved(what: string, cause?: unknown): PosternError {
  return new PosternError('EDGE_UNTRUSTED', what, { cause })
}

/** Another process may have been faster, or somebody has signed in with another CA: theirs counts. */
function keepCas(edge: KnownEdge, caPem: string): void {
  const stored = readEdgeFolder(edge.folder)
  if (!stored || stored.caPem !== edge.caPem) return reloadCas(edge)
  const { namedCaPem = stored.caPem } = stored
  saveEdgeFolder({ ...stored, caPem, ...(namedCaPem === undefined ? {} : { namedCaPem }) })
  edge.caPem = caPem
}
