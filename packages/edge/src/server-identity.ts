import { X509Certificate } from 'node:crypto'
import { type ErrorCode, PosternError, toPosternError } from '@postern/shared/errors'
import type { Logger } from '@postern/shared/logger'
import type { AlpnAnswers, ChallengeSolver, ChallengeType } from './acme/challenges.ts'
import { DnsHook } from './acme/dns-hook.ts'
import { openHttpChallenge } from './acme/http-challenge.ts'
import { CertificateKeeper, type RenewalAdvice } from './acme/keep-certificate.ts'
import { type TakeOrderTurn, takeTurnAlone, takeTurnsInStore } from './acme/order-turns.ts'
import type { RenewalWindow } from './acme/renewal-plan.ts'
import { SharedProofs, sharing } from './acme/shared-proofs.ts'
import { AcmeState } from './acme/state.ts'
import { type AlpnFleet, TlsAlpnChallenge } from './acme/tls-alpn-challenge.ts'
import { fingerprintOf } from './ca/authorities.ts'
import type { EdgeCa } from './ca/edge-ca.ts'
import { type EdgeCertificate, issueEdgeCertificate, renewEdgeCertificate } from './ca/issue-edge.ts'
import type { AcmeConfig, EdgeConfig } from './config/config.ts'
import type { ServerIdentity } from './flow/rooms.ts'
import { loadLoginKeys } from './login/keys.ts'
import {
  type CertificateFiles,
  readCertificateFiles,
  watchCertificateFiles,
} from './server-certificate/files.ts'
import type { CertificateStatus } from './status.ts'
import type { Store } from './store/open.ts'

/** The certificate the edge shows: from files that are read again when they change, by ACME, or from its own CA. Renewed
 *  without a restart, and without a word to the flows that run. */
export interface OpenServerIdentity extends AsyncDisposable {
  readonly current: ServerIdentity
  /** What clients must be given to trust it; undefined with a public certificate. */
  caFile: string | undefined
  /** `sha256:HEX` of that CA, see `fingerprintOf`. */
  caFingerprint: string | undefined
  onRenewed(listener: (identity: ServerIdentity) => void): void
  /** Another one of the edge's own CAs signs from now on, or others are believed. */
  useCa(ca: EdgeCa): Promise<void>
  /** What there is to say about it; `onStatus` is told when that has changed. */
  describe(): CertificateStatus
  onStatus(listener: () => void): void
  /** What servers that speak `acme-tls/1` are shown; undefined: none is expected. */
  readonly alpnChallenge: AlpnAnswers | undefined
  /** Orders what is missing. Call it when the port listens: the CA looks for the proof there. */
  start(): void
}

export interface IdentityParts {
  dataDir: string
  clock: () => number
  log: Logger
  /** Where other edges may be: they show each other's proofs, and order one after the other. */
  fleet?: { store: Pick<Store, 'db' | 'changes'>; isStoreLost: () => boolean } | undefined
  /** Told of each new certificate, and of each that could not be had. */
  countRenewed?: () => void
  countFailed?: (code: ErrorCode) => void
}

/** @throws CONFIG_INVALID a file cannot be used */
export async function openServerIdentity(
  { domain, tls }: Pick<EdgeConfig, 'domain' | 'tls'>,
  ca: EdgeCa,
  parts: IdentityParts,
): Promise<OpenServerIdentity> {
  if (!tls) return identityFromOwnCa(ca, domain, parts)
  if (tls.kind === 'files') return identityFromFiles(tls, domain, parts)
  return identityByAcme(tls, ca, { ...parts, domain })
}

/** Until the first certificate is there the edge shows one of its own CA: it has to answer for the CA to look at it. */
async function identityByAcme(
  config: AcmeConfig,
  ca: EdgeCa,
  parts: IdentityParts & { domain: string },
): Promise<OpenServerIdentity> {
  await using opened = new AsyncDisposableStack()
  const fleet = await openAcmeFleet(parts)
  const alpn = new TlsAlpnChallenge(fleet)
  const solver = opened.use(await openSolver(config.challenge, alpn, { log: parts.log, fleet }))
  const keeper = opened.use(
    new CertificateKeeper(config, {
      state: new AcmeState(parts.dataDir),
      solver,
      takeTurn: fleet?.takeTurn ?? takeTurnAlone,
      clock: parts.clock,
      onCertificate: (next) => shown.replace(next),
      onFailed: (error, nextAttemptAt) => shown.fail(error, { nextAttemptAt }),
      onAdvice: (advice) => shown.tellAdvice(advice),
      onNoAdvice: (error) => parts.log.info('edge.certificate_advice_failed', { error }),
    }),
  )
  const kept = await keeper.open()
  const first = kept ?? withCa(await issueEdgeCertificate(ca.signing, parts.domain, parts.clock()), ca)
  const shown = new ShownIdentity(first, 'ACME', parts)
  shown.isAwaited = kept === undefined
  shown.nextAttemptAt = () => keeper.nextAttemptAt
  shown.suggestedWindow = () => keeper.suggestedWindow
  shown.challenge = config.challenge.type
  shown.renewal = opened.move()
  if (solver.type === 'tls-alpn-01') shown.alpnChallenge = alpn
  shown.start = () => keeper.start()
  return shown
}

interface AcmeFleet extends AlpnFleet {
  takeTurn: TakeOrderTurn
}

/** @returns undefined where nobody else has this store */
async function openAcmeFleet(parts: IdentityParts & { domain: string }): Promise<AcmeFleet | undefined> {
  const { fleet, dataDir, domain, clock, log } = parts
  const edge = fleet?.store.changes?.edge
  if (!fleet || edge === undefined) return undefined
  const { store, isStoreLost } = fleet
  const { db } = store
  const secret = (await loadLoginKeys(dataDir)).nonceSecret.toString('base64url') // the same at every edge
  const shared = new SharedProofs({ db, secret, isStoreLost, clock, log })
  return { shared, domain, log, takeTurn: takeTurnsInStore(db, { edge, clock, log }) }
}

async function openSolver(
  challenge: AcmeConfig['challenge'],
  alpn: TlsAlpnChallenge,
  { log, fleet }: { log: Logger; fleet: AcmeFleet | undefined },
): Promise<ChallengeSolver> {
  const shared = (solver: ChallengeSolver) => (fleet ? sharing(solver, fleet.shared) : solver)
  switch (challenge.type) {
    case 'http-01':
      return shared(await openHttpChallenge(challenge.listen, fleet))
    case 'dns-01':
      return new DnsHook(challenge.hook, log)
    case 'tls-alpn-01':
      return shared(alpn)
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
  ca: EdgeCa,
  domain: string,
  parts: IdentityParts,
): Promise<OpenServerIdentity> {
  const first = await issueEdgeCertificate(ca.signing, domain, parts.clock())
  const shown = new ShownIdentity(withCa(first, ca), 'internal CA', parts)
  shown.caFile = ca.signing.certificateFile
  shown.caFingerprint = fingerprintOf(ca.signing)
  shown.overlapUntil = ca.overlapUntil
  const renew = (by: EdgeCa, current: EdgeCertificate) =>
    renewEdgeCertificate(by.signing, current, {
      domain,
      clock: parts.clock,
      onRenewed: (renewed) => shown.replace(withCa(renewed, by)),
      onError: (error) =>
        shown.fail(toPosternError(error, 'INTERNAL', 'the edge cannot sign its certificate')),
    })
  let [used, renewal] = [ca, renew(ca, first)]
  shown.useCa = async (next) => {
    if (next.chainPem === used.chainPem) return
    used = next
    const certificate = await issueEdgeCertificate(next.signing, domain, parts.clock())
    renewal[Symbol.dispose]()
    renewal = renew(next, certificate)
    shown.overlapUntil = next.overlapUntil
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
  overlapUntil: number | undefined
  renewal: Disposable | AsyncDisposable | undefined
  isAwaited = false
  alpnChallenge: AlpnAnswers | undefined
  challenge: ChallengeType | undefined
  nextAttemptAt: () => number | undefined = () => undefined
  suggestedWindow: () => RenewalWindow | undefined = () => undefined
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
    const { nextAttemptAt } = more
    const next = nextAttemptAt === undefined ? {} : { nextAttemptAt: timeOf(nextAttemptAt) }
    this.#parts.log.error('edge.certificate_renewal_failed', { error, ...next })
    const { code, message, hint } = error
    const inARow = (this.#failure?.inARow ?? 0) + 1
    this.#failure = { code, message, hint, at: this.#parts.clock(), inARow }
    this.#onStatus()
  }

  /** The CA has its reasons to name a time; they may be ours too. */
  tellAdvice({ window, nextAttemptAt, explanationUrl }: RenewalAdvice): void {
    const [start, end, next] = [window.start, window.end, nextAttemptAt].map(timeOf)
    this.#parts.log.info('edge.certificate_advice', { start, end, nextAttemptAt: next, explanationUrl })
    this.#onStatus()
  }

  onRenewed(listener: (identity: ServerIdentity) => void): void {
    this.#listener = listener
  }

  describe(): CertificateStatus {
    const { serialNumber, validToDate, subjectAltName = '' } = new X509Certificate(this.current.cert)
    const [nextAttemptAt, suggestedWindow] = [this.nextAttemptAt(), this.suggestedWindow()]
    return {
      source: this.#source,
      names: subjectAltName.split(', ').map((name) => name.replace(/^DNS:/, '')),
      serial: serialNumber.toLowerCase(),
      notAfter: validToDate.getTime(),
      isAwaited: this.isAwaited,
      ...(this.challenge === undefined ? {} : { challenge: this.challenge }),
      // one that is overdue begins now, or when it is this edge's turn
      ...(nextAttemptAt === undefined ? {} : { nextAttemptAt: Math.max(nextAttemptAt, this.#parts.clock()) }),
      ...(suggestedWindow ? { suggestedWindow } : {}),
      ...(this.overlapUntil === undefined ? {} : { caOverlapUntil: this.overlapUntil }),
      ...(this.#failure ? { failure: this.#failure } : {}),
    }
  }

  onStatus(listener: () => void): void {
    this.#onStatus = listener
  }

  async useCa(_ca: EdgeCa): Promise<void> {}

  start(): void {}

  async [Symbol.asyncDispose](): Promise<void> {
    await using _renewal = this.renewal
  }
}

/** In the log, for people. */
function timeOf(ms: number): string {
  return new Date(ms).toISOString()
}

/** The CA goes along, so that who knows its fingerprint can find it in the handshake. */
function withCa({ certificate, key }: EdgeCertificate, { chainPem }: EdgeCa): ServerIdentity {
  return { key, cert: `${certificate.trimEnd()}\n${chainPem}` }
}
