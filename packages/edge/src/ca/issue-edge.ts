import { generateKeyPairSync } from 'node:crypto'
import type { Authority } from './authorities.ts'
import { requireKind } from './issue-client.ts'
import { type IssuedLeaf, printedName, signLeaf } from './leaf.ts'

/** The edge's own server certificate with its key, both PEM. The key lives in memory only. */
export interface EdgeCertificate extends IssuedLeaf {
  key: string
}

/** Public CAs and browsers accept up to 398 days; short is better, because nobody has to renew by hand. */
const LIFETIME_MS = 30 * 86_400_000
const BACKDATE_MS = 3_600_000
const CHECK_EVERY_MS = 3_600_000

/** For `<domain>` and `*.<domain>`: the latter covers `mtls.<domain>` and every service. */
export async function issueEdgeCertificate(
  authority: Authority,
  domain: string,
  now: number,
): Promise<EdgeCertificate> {
  requireKind(authority, 'edge')
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const leaf = await signLeaf(authority, {
    commonName: domain,
    usage: 'serverAuth',
    names: [
      { type: 'dns', value: domain },
      { type: 'dns', value: `*.${domain}` },
    ],
    publicKey,
    notBefore: now - BACKDATE_MS,
    notAfter: now + LIFETIME_MS,
  })
  return { ...leaf, key: privateKey.export({ type: 'pkcs8', format: 'pem' }).toString() }
}

/** What Node says in `subjectAltName` of exactly this certificate. */
export function edgeSubjectAltName(domain: string): string {
  return `${printedName('DNS', domain)}, ${printedName('DNS', `*.${domain}`)}`
}

/** Renews when a third of the lifetime is left: ten days to notice that something is wrong. */
export function isDueForRenewal(certificate: IssuedLeaf, now: number): boolean {
  return now >= certificate.notAfter - LIFETIME_MS / 3
}

/** Looks every hour whether the certificate is due and hands a new one to `onRenewed`; a failure is handed to
 *  `onError` and tried again an hour later. The timer does not keep the process alive. */
export function renewEdgeCertificate(
  authority: Authority,
  first: EdgeCertificate,
  parts: {
    domain: string
    clock: () => number
    onRenewed: (certificate: EdgeCertificate) => void
    onError: (error: unknown) => void
  },
): Disposable {
  let current = first
  const renewIfDue = async () => {
    if (!isDueForRenewal(current, parts.clock())) return
    current = await issueEdgeCertificate(authority, parts.domain, parts.clock())
    parts.onRenewed(current)
  }
  const timer = setInterval(() => void renewIfDue().catch(parts.onError), CHECK_EVERY_MS)
  timer.unref()
  return { [Symbol.dispose]: () => clearInterval(timer) }
}
