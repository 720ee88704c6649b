import { X509Certificate } from 'node:crypto'
import type { SecureContext } from 'node:tls'
import { type ErrorCode, PosternError, toPosternError } from '@postern/shared/errors'
import type { Logger } from '@postern/shared/logger'
import type { ChallengeSolver } from './acme/challenges.ts'
import { DnsHook } from './acme/dns-hook.ts'
import { openHttpChallenge } from './acme/http-challenge.ts'
import { CertificateKeeper } from './acme/keep-certificate.ts'
import { AcmeState } from './acme/state.ts'
import { TlsAlpnChallenge } from './acme/tls-alpn-challenge.ts'
import { type Authority, fingerprintOf } from './ca/authorities.ts'
import { type EdgeCertificate, issueEdgeCertificate, renewEdgeCertificate } from './ca/issue-edge.ts'
import type { AcmeConfig, EdgeConfig } from './config/config.ts'
import type { ServerIdentity } from './flow/rooms.ts'
import {
  type CertificateFiles,
  readCertificateFiles,
  watchCertificateFiles,
} from './server-certificate/files.ts'
import type { CertificateStatus } from './status.ts'

/** The certificate the edge shows: from files that are read again when they change, by ACME, or from its own CA. Renewed
 *  without a restart, and without a word to the flows that run. */
export interface OpenServerIdentity extends AsyncDisposable {
  readonly current: ServerIdentity
  /** What clients must be given to trust it; undefined with a public certificate. */
  caFile: string | undefined
  /** `sha256:HEX` of that CA, see `fingerprintOf`. */
  caFingerprint: string | undefined
  onRenewed(listener: (identity: ServerIdentity) => void): void
  /** Another one of the edge's own CAs signs from now on. */
  useAuthority(authority: Authority): Promise<void>
  /** What there is to say about it; `onStatus` is told when that has changed. */
  describe(): CertificateStatus
  onStatus(listener: () => void): void
  /** What a server that speaks `acme-tls/1` for this name is shown; undefined: none is expected. */
  alpnChallenge(serverName: string): SecureContext | undefined
  /** Orders what is missing. Call it when the port listens: the CA looks for the proof there. */
  start(): void
}

export interface IdentityParts {
  dataDir: string
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
  if (!tls) return identityFromOwnCa(authority, domain, parts)
  if (tls.kind === 'files') return identityFromFiles(tls, domain, parts)
  return identityByAcme(tls, authority, { ...parts, domain })
}

/** Until the first certificate is there the edge shows one of its own CA: it has to answer for the CA to look at it. */
async function identityByAcme(
  config: AcmeConfig,
  authority: Authority,
  parts: IdentityParts & { domain: string },
): Promise<OpenServerIdentity> {
  await using opened = new AsyncDisposableStack()
  const alpn = new TlsAlpnChallenge()
  const solver = opened.use(await openSolver(config.challenge, alpn, parts.log))
  const keeper = opened.use(
    new CertificateKeeper(config, {
      state: new AcmeState(parts.dataDir),
      solver,
      clock: parts.clock,
      onCertificate: (next) => shown.replace(next),
      onFailed: (error, nextAttemptAt) => shown.fail(error, { nextAttemptAt }),
    }),
  )
  const kept = await keeper.open()
  const first = kept ?? withCa(await issueEdgeCertificate(authority, parts.domain, parts.clock()), authority)
  const shown = new ShownIdentity(first, 'ACME', parts)
  shown.isAwaited = kept === undefined
  shown.nextAttemptAt = () => keeper.nextAttemptAt
  shown.renewal = opened.move()
  shown.alpnChallenge = (serverName) => alpn.contextFor(serverName)
  shown.start = () => keeper.start()
  return shown
}

async function openSolver(
  challenge: AcmeConfig['challenge'],
  alpn: TlsAlpnChallenge,
  log: Logger,
): Promise<ChallengeSolver> {
  switch (challenge.type) {
    case 'http-01':
      return openHttpChallenge(challenge.listen)
    case 'dns-01':
      return new DnsHook(challenge.hook, log)
    case 'tls-alpn-01':
      return alpn
  }
}

async function identityFromFiles(
  files: CertificateFiles,
  domain: string,
  parts: IdentityParts,
): Promise<OpenServerIdentity> {
  const pair = await readCertificateFiles(files, { domain }).catch((cause: PosternError) => {
    throw new PosternError('CONFIG_INVALID', cause.message, { cause })
  })
  const shown = new ShownIdentity(pair, 'files', parts)
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
  const shown = new ShownIdentity(withCa(first, authority), 'internal CA', parts)
  shown.caFile = authority.certificateFile
  shown.caFingerprint = fingerprintOf(authority)
  const renew = (by: Authority, current: EdgeCertificate) =>
    renewEdgeCertificate(by, current, {
      domain,
      clock: parts.clock,
      onRenewed: (renewed) => shown.replace(withCa(renewed, by)),
      onError: (error) =>
        shown.fail(toPosternError(error, 'INTERNAL', 'the edge cannot sign its certificate')),
    })
  let [signing, renewal] = [authority, renew(authority, first)]
  shown.useAuthority = async (next) => {
    if (next === signing) return
    signing = next
    const certificate = await issueEdgeCertificate(next, domain, parts.clock())
    renewal[Symbol.dispose]()
    renewal = renew(next, certificate)
    shown.replace(withCa(certificate, next))
  }
  shown.renewal = { [Symbol.dispose]: () => renewal[Symbol.dispose]() }
  return shown
}

/** What is shown now, and how it is replaced: in one step for all rooms. */
class ShownIdentity implements OpenServerIdentity {
  current: ServerIdentity
  caFile: string | undefined
  caFingerprint: string | undefined
  renewal: Disposable | AsyncDisposable | undefined
  isAwaited = false
  nextAttemptAt: () => number | undefined = () => undefined
  readonly #source: string
  readonly #parts: IdentityParts
  #failure: CertificateStatus['failure']
  #onStatus = () => {}
  #listener = (_identity: ServerIdentity) => {}

  constructor(first: ServerIdentity, source: string, parts: IdentityParts) {
    this.current = first
    this.#source = source
    this.#parts = parts
  }

  replace(next: ServerIdentity): void {
    this.current = next
    this.#listener(next)
    this.isAwaited = false
    this.#failure = undefined
    this.#parts.countRenewed?.()
    const { serial, notAfter } = this.describe()
    this.#parts.log.info('edge.certificate_renewed', { serial, notAfter })
    this.#onStatus()
  }

  /** The one there is stays. */
  fail(error: PosternError, more: { nextAttemptAt?: number } = {}): void {
    this.#parts.countFailed?.(error.code)
    this.#parts.log.error('edge.certificate_renewal_failed', { error, ...more })
    const { code, message } = error
    const inARow = (this.#failure?.inARow ?? 0) + 1
    this.#failure = { code, message, at: this.#parts.clock(), inARow }
    this.#onStatus()
  }

  onRenewed(listener: (identity: ServerIdentity) => void): void {
    this.#listener = listener
  }

  describe(): CertificateStatus {
    const { serialNumber, validToDate, subjectAltName = '' } = new X509Certificate(this.current.cert)
    const nextAttemptAt = this.nextAttemptAt()
    return {
      source: this.#source,
      names: subjectAltName.split(', ').map((name) => name.replace(/^DNS:/, '')),
      serial: serialNumber.toLowerCase(),
      notAfter: validToDate.getTime(),
      isAwaited: this.isAwaited,
      ...(nextAttemptAt === undefined ? {} : { nextAttemptAt }),
      ...(this.#failure ? { failure: this.#failure } : {}),
    }
  }

  onStatus(listener: () => void): void {
    this.#onStatus = listener
  }

  async useAuthority(_authority: Authority): Promise<void> {}

  alpnChallenge(_serverName: string): SecureContext | undefined {
    return undefined
  }

  start(): void {}

  async [Symbol.asyncDispose](): Promise<void> {
    await using _renewal = this.renewal
  }
}

/** The CA goes along, so that who knows its fingerprint can find it in the handshake. */
function withCa({ certificate, key }: EdgeCertificate, authority: Authority): ServerIdentity {
  return { key, cert: `${certificate.trimEnd()}\n${authority.certificatePem}` }
}
