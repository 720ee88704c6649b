import { X509Certificate } from 'node:crypto'
import { type ErrorCode, PosternError, toPosternError } from '@postern/shared/errors'
import type { Logger } from '@postern/shared/logger'
import { type Authority, fingerprintOf } from './ca/authorities.ts'
import { type EdgeCertificate, issueEdgeCertificate, renewEdgeCertificate } from './ca/issue-edge.ts'
import type { EdgeConfig } from './config/config.ts'
import type { ServerIdentity } from './flow/rooms.ts'
import {
  type CertificateFiles,
  readCertificateFiles,
  watchCertificateFiles,
} from './server-certificate/files.ts'

/** The certificate the edge shows: from files that are read again when they change, or from its own CA and then renewed.
 *  Either without a restart, and without a word to the flows that run. */
export interface OpenServerIdentity extends Disposable {
  readonly current: ServerIdentity
  /** What clients must be given to trust it; undefined with a public certificate. */
  caFile: string | undefined
  /** `sha256:HEX` of that CA, see `fingerprintOf`. */
  caFingerprint: string | undefined
  onRenewed(listener: (identity: ServerIdentity) => void): void
}

export interface IdentityParts {
  clock: () => number
  log: Logger
  /** Told of each new certificate, and of each that could not be had. */
  countRenewed?: () => void
  countFailed?: (code: ErrorCode) => void
}

/** @throws CONFIG_INVALID a file cannot be used */
export async function openServerIdentity(
  { domain, tls }: Pick<EdgeConfig, 'domain' | 'tls'>,
  authority: Authority,
  parts: IdentityParts,
): Promise<OpenServerIdentity> {
  if (tls) return identityFromFiles(tls, domain, parts)
  return identityFromOwnCa(authority, domain, parts)
}

async function identityFromFiles(
  files: CertificateFiles,
  domain: string,
  parts: IdentityParts,
): Promise<OpenServerIdentity> {
  const pair = await readCertificateFiles(files, { domain }).catch((cause: PosternError) => {
    throw new PosternError('CONFIG_INVALID', cause.message, { cause })
  })
  const shown = new ShownIdentity(pair, parts)
  shown.renewal = watchCertificateFiles(files, pair, {
    domain,
    clock: parts.clock,
    onChanged: (next) => shown.replace(next),
    onRefused: (error) => shown.fail(error),
  })
  return shown
}

async function identityFromOwnCa(
  authority: Authority,
  domain: string,
  parts: IdentityParts,
): Promise<OpenServerIdentity> {
  const first = await issueEdgeCertificate(authority, domain, parts.clock())
  const shown = new ShownIdentity(withCa(first, authority), parts)
  shown.caFile = authority.certificateFile
  shown.caFingerprint = fingerprintOf(authority)
  shown.renewal = renewEdgeCertificate(authority, first, {
    domain,
    clock: parts.clock,
    onRenewed: (renewed) => shown.replace(withCa(renewed, authority)),
    onError: (error) => shown.fail(toPosternError(error, 'INTERNAL', 'the edge cannot sign its certificate')),
  })
  return shown
}

/** What is shown now, and how it is replaced: in one step for all rooms. */
class ShownIdentity implements OpenServerIdentity {
  current: ServerIdentity
  caFile: string | undefined
  caFingerprint: string | undefined
  renewal: Disposable | undefined
  readonly #parts: IdentityParts
  #listener = (_identity: ServerIdentity) => {}

  constructor(first: ServerIdentity, parts: IdentityParts) {
    this.current = first
    this.#parts = parts
  }

  replace(next: ServerIdentity): void {
    this.current = next
    this.#listener(next)
    const { serialNumber, validToDate } = new X509Certificate(next.cert)
    this.#parts.countRenewed?.()
    this.#parts.log.info('edge.certificate_renewed', {
      serial: serialNumber.toLowerCase(),
      notAfter: validToDate.getTime(),
    })
  }

  /** The one there is stays. */
  fail(error: PosternError): void {
    this.#parts.countFailed?.(error.code)
    this.#parts.log.error('edge.certificate_renewal_failed', { error })
  }

  onRenewed(listener: (identity: ServerIdentity) => void): void {
    this.#listener = listener
  }

  [Symbol.dispose](): void {
    this.renewal?.[Symbol.dispose]()
  }
}

/** The CA goes along, so that who knows its fingerprint can find it in the handshake. */
function withCa({ certificate, key }: EdgeCertificate, authority: Authority): ServerIdentity {
  return { key, cert: `${certificate.trimEnd()}\n${authority.certificatePem}` }
}
