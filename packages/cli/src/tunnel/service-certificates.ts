import { type ClientCertificate, forgetCertificate, readCertificate } from '../credentials/cache.ts'
import type { LoginPolicy } from '../credentials/fresh.ts'
import { reloadCas } from '../credentials/known-edge.ts'
import { LiveCertificate } from '../credentials/live-certificate.ts'
import { SignInDesk } from '../credentials/sign-in-desk.ts'
import type { Trust } from './dial-edge.ts'
import type { Report } from './listener-events.ts'
import type { ServicePlace } from './service-flow.ts'

/** The certificates of a program that reaches one service or several, each taken once for all who need it. */
export class ServiceCertificates {
  readonly #policy: LoginPolicy
  readonly #report: Report
  readonly #certificates = new Map<string, LiveCertificate<Trust>>()
  readonly #desks = new Map<string, SignInDesk>()

  constructor(policy: LoginPolicy, report: Report) {
    this.#policy = policy
    this.#report = report
  }

  of(place: ServicePlace): LiveCertificate<Trust> {
    const { origin } = place.edge
    const key = `${place.host} ${origin}`
    const known = this.#certificates.get(key)
    if (known) return known
    const desk = this.#desks.get(origin) ?? new SignInDesk()
    this.#desks.set(origin, desk)
    const source = createSource(place, this.#policy, this.#report)
    const { mayAsk } = this.#policy
    const certificate = new LiveCertificate<Trust>(source, { mayAsk, report: this.#report, desk })
    this.#certificates.set(key, certificate)
    return certificate
  }
}

/** What is stored is read each time: another process may have renewed it, or signed in as somebody else. */
function createSource({ edge, label, host }: ServicePlace, policy: LoginPolicy, report: Report) {
  let current: (ClientCertificate & Trust) | undefined
  // one object for each certificate: connections share what TLS makes of it
  const keep = (stored: ClientCertificate) => {
    const isNew = stored.certificatePem !== current?.certificatePem
    if (isNew) reloadCas(edge) // who got it may have learned of another CA
    if (isNew || current?.caPem !== edge.caPem) current = { ...stored, caPem: edge.caPem }
    return current!
  }
  return {
    read() {
      const stored = readCertificate(edge, label)
      return stored && keep(stored)
    },
    async fetch(mayAsk: boolean) {
      const { issueClientCertificate } = await import('../credentials/issue.ts')
      const issued = await issueClientCertificate(edge, label, { ...policy, mayAsk })
      report({ event: 'renewed', host, notAfter: issued.notAfter })
      return keep(issued)
    },
    forget: () => forgetCertificate(edge, label),
  }
}
