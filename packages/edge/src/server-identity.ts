import { readFile } from 'node:fs/promises'
import { PosternError } from '@postern/shared/errors'
import type { Logger } from '@postern/shared/logger'
import { type Authority, fingerprintOf } from './ca/authorities.ts'
import { issueEdgeCertificate, renewEdgeCertificate } from './ca/issue-edge.ts'
import type { EdgeConfig } from './config/config.ts'
import type { ServerIdentity } from './flow/rooms.ts'

/** The certificate the edge shows: from files, or from its own CA and then renewed without a restart. */
export interface OpenServerIdentity extends Disposable {
  readonly current: ServerIdentity
  /** What clients must be given to trust it; undefined with a public certificate. */
  caFile: string | undefined
  /** `sha256:HEX` of that CA, see `fingerprintOf`. */
  caFingerprint: string | undefined
  onRenewed(listener: (identity: ServerIdentity) => void): void
}

/** @throws CONFIG_INVALID a file cannot be read */
export async function openServerIdentity(
  config: Pick<EdgeConfig, 'domain' | 'tls'>,
  authority: Authority,
  { clock, log }: { clock: () => number; log: Logger },
): Promise<OpenServerIdentity> {
  if (config.tls) {
    const [cert, key] = await Promise.all([config.tls.certificateFile, config.tls.keyFile].map(readPem))
    return {
      current: { cert: cert!, key: key! },
      caFile: undefined,
      caFingerprint: undefined,
      onRenewed: () => {},
      [Symbol.dispose]: () => {},
    }
  }
  const first = await issueEdgeCertificate(authority, config.domain, clock())
  let listener = (_identity: ServerIdentity) => {}
  let current = { key: first.key, cert: withCa(first.certificate, authority) }
  const renewal = renewEdgeCertificate(authority, first, {
    domain: config.domain,
    clock,
    onRenewed(renewed) {
      log.info('edge.certificate_renewed', { serial: renewed.serial, notAfter: renewed.notAfter })
      current = { key: renewed.key, cert: withCa(renewed.certificate, authority) }
      listener(current)
    },
    onError: (error) => log.error('edge.certificate_renewal_failed', { error }),
  })
  return {
    get current() {
      return current
    },
    caFile: authority.certificateFile,
    caFingerprint: fingerprintOf(authority),
    onRenewed(next) {
      listener = next
    },
    [Symbol.dispose]: () => renewal[Symbol.dispose](),
  }
}

/** The CA goes along, so that who knows its fingerprint can find it in the handshake. */
function withCa(certificate: string, authority: Authority): string {
  return `${certificate.trimEnd()}\n${authority.certificatePem}`
}

async function readPem(file: string): Promise<string> {
  return readFile(file, 'utf8').catch((cause: NodeJS.ErrnoException) => {
    throw new PosternError('CONFIG_INVALID', `the file ${file} cannot be read (${cause.code})`, { cause })
  })
}
