import { X509Certificate } from 'node:crypto'
import { x509 } from '../ca/x509.ts'
import type { RenewalInfo } from './messages.ts'

/** When the next certificate is ordered: when the CA advises it (ARI, RFC 9773), else when a third of the life is left.
 *  A stranger's advice is followed within bounds: never so late that there would be no time for failures, never so soon
 *  that bad advice has the edge order in a circle. */

const HOUR_MS = 3_600_000
/** Where the CA does not say, and after an answer that was no good (RFC 9773 §4.3). */
const ASK_EVERY_MS = 6 * HOUR_MS
const MAX_ASK_MS = 24 * HOUR_MS
/** A certificate is not replaced sooner: this, or a twelfth of its life. */
const MIN_AGE_MS = 6 * HOUR_MS

export interface RenewalWindow {
  /** Epoch milliseconds. */
  start: number
  end: number
}

export class RenewalPlan {
  readonly #parts: { clock: () => number; random: () => number; minAskMs: number }
  #life: { from: number; to: number } | undefined
  #id: string | undefined
  #window: RenewalWindow | undefined
  #askAt = Number.POSITIVE_INFINITY
  #dueAt = 0

  constructor(parts: { clock: () => number; random: () => number; minAskMs: number }) {
    this.#parts = parts
  }

  /** Epoch milliseconds; 0: now. */
  get dueAt(): number {
    return this.#dueAt
  }

  /** When the CA is asked (again): epoch milliseconds. */
  get askAt(): number {
    return this.#askAt
  }

  /** What the CA advises. */
  get window(): RenewalWindow | undefined {
    return this.#window
  }

  /** What the CA calls the certificate. */
  get id(): string | undefined {
    return this.#id
  }

  /** Begins anew with this certificate: when a third of its life is left, or up to a twelfth of it sooner. */
  follow(cert: string): void {
    const { validFromDate, validToDate } = new X509Certificate(cert)
    const life = { from: validFromDate.getTime(), to: validToDate.getTime() }
    this.#life = life
    this.#id = certificateId(cert)
    this.#window = undefined
    this.#askAt = this.#id === undefined ? Number.POSITIVE_INFINITY : 0
    this.#dueAt = Math.round(life.to - (life.to - life.from) * (1 / 3 + this.#parts.random() / 12))
  }

  /** @param advice undefined: this CA gives none
   *  @returns whether there is something new in it */
  advise(advice: (RenewalInfo & { retryAfterMs?: number | undefined }) | undefined): boolean {
    if (!advice || !this.#life) {
      this.#askAt = Number.POSITIVE_INFINITY
      return false
    }
    this.#askAgainIn(Math.min(advice.retryAfterMs ?? ASK_EVERY_MS, MAX_ASK_MS))
    const { start, end } = advice.suggestedWindow
    if (this.#window?.start === start && this.#window.end === end) return false
    this.#window = { start, end }
    const { from, to } = this.#life
    const chosen = Math.round(start + (end - start) * this.#parts.random())
    const soonest = from + Math.min(MIN_AGE_MS, (to - from) / 12)
    const latest = to - (to - from) / 12
    this.#dueAt = Math.min(Math.max(chosen, soonest), latest)
    return true
  }

  /** It has not answered, or with something else: what was planned stays. */
  adviceFailed(retryAfterMs?: number): void {
    this.#askAgainIn(Math.max(retryAfterMs ?? 0, ASK_EVERY_MS))
  }

  /** Nobody asks about what has expired. */
  #askAgainIn(ms: number): void {
    const { clock, minAskMs } = this.#parts
    const at = clock() + Math.max(ms, minAskMs)
    this.#askAt = this.#life && at < this.#life.to ? at : Number.POSITIVE_INFINITY
  }
}

/** Key identifier of the issuer and serial (RFC 9773 §4.1). @returns undefined for a certificate that has no such id */
export function certificateId(cert: string): string | undefined {
  const certificate = new x509.X509Certificate(new X509Certificate(cert).toString())
  const keyId = keyIdOf(certificate)
  if (!keyId) return undefined
  const serial = Buffer.from(certificate.serialNumber, 'hex')
  // the content of an ASN.1 INTEGER: a first bit that is set would be a sign
  const integer = (serial[0] ?? 0) & 0x80 ? Buffer.concat([Buffer.of(0), serial]) : serial
  return `${Buffer.from(keyId, 'hex').toString('base64url')}.${integer.toString('base64url')}`
}

/** One that TLS takes is good enough to be shown, whatever its extensions are. */
function keyIdOf(certificate: x509.X509Certificate): string | undefined {
  try {
    return certificate.getExtension(x509.AuthorityKeyIdentifierExtension)?.keyId
  } catch {
    return undefined
  }
}
