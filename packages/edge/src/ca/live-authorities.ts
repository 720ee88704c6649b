import { X509Certificate } from 'node:crypto'
import type { Logger } from '@postern/shared/logger'
import {
  AUTHORITY_KINDS,
  type Authorities,
  type Authority,
  type AuthorityKind,
  loadAuthority,
} from './authorities.ts'
import { describeEdgeCa, type EdgeCa } from './edge-ca.ts'
import type { Generation } from './generations.ts'
import type { KeyLock } from './key-file.ts'
import { LiveGenerations } from './live-generations.ts'

export interface LiveAuthoritiesParts {
  lock: KeyLock | undefined
  clock: () => number
  log: Logger
}

/** The CAs of a running edge, as they take over from each other. */
export class LiveAuthorities implements Authorities, Disposable {
  readonly #live: LiveGenerations<AuthorityKind, Authority>
  /** Of those that are believed now, for looking at leaves. */
  readonly #certificates = new Map<AuthorityKind, readonly X509Certificate[]>()
  #edgeCa: EdgeCa | undefined

  constructor(dataDir: string, { lock, clock, log }: LiveAuthoritiesParts) {
    const load = (kind: AuthorityKind, name: string) => loadAuthority(dataDir, kind, { name, lock })
    this.#live = new LiveGenerations(dataDir, { kinds: AUTHORITY_KINDS, load, clock, log })
    this.#live.onChanged(() => {
      this.#certificates.clear()
      this.#edgeCa = undefined
    })
  }

  get client(): Authority {
    return this.#live.signing('client')
  }
  get connector(): Authority {
    return this.#live.signing('connector')
  }
  get workload(): Authority {
    return this.#live.signing('workload')
  }
  get server(): Authority {
    return this.#live.signing('server')
  }
  get edge(): Authority {
    return this.#live.signing('edge')
  }

  /** The same, with what clients are shown of it. */
  get edgeCa(): EdgeCa {
    this.#edgeCa ??= describeEdgeCa(this.edge, this.#live.trusted('edge'))
    return this.#edgeCa
  }

  /** Oldest first; the one that signs is among them. */
  trusted(kind: AuthorityKind): readonly Authority[] {
    return this.#live.trusted(kind).map(({ authority }) => authority)
  }

  /** The same, for looking at a leaf. */
  certificates(kind: AuthorityKind): readonly X509Certificate[] {
    const known = this.#certificates.get(kind)
    if (known) return known
    const certificates = this.trusted(kind).map(({ certificatePem }) => new X509Certificate(certificatePem))
    this.#certificates.set(kind, certificates)
    return certificates
  }

  /** The same in PEM, for OpenSSL. */
  bundle(kind: AuthorityKind): string {
    return this.trusted(kind)
      .map(({ certificatePem }) => certificatePem)
      .join('')
  }

  /** Those that are believed or will be, with their dates and named by this. */
  dated(kind: AuthorityKind, nameOf: (authority: Authority) => string): Generation[] {
    return this.#live.dated(kind, nameOf)
  }

  /** Called when another CA signs, or others are believed. */
  onChanged(listener: () => void): void {
    this.#live.onChanged(listener)
  }

  /** @throws as `loadAuthority` · STATE_INVALID */
  async start(): Promise<this> {
    await this.#live.start()
    return this
  }

  [Symbol.dispose](): void {
    this.#live[Symbol.dispose]()
  }
}
