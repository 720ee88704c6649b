import { signSshAuthorityList } from '@postern/shared/certs/ssh-authority-list'
import type { Generation } from './generations.ts'
import type { LiveAuthoritiesParts } from './live-authorities.ts'
import { LiveGenerations } from './live-generations.ts'
import {
  loadSshAuthority,
  openSshAuthorities,
  SSH_AUTHORITY_KINDS,
  type SshAuthorities,
  type SshAuthority,
  type SshAuthorityKind,
  type SshCaKeyType,
  type SshGenerationKind,
  sshGenerationKind,
} from './ssh-authorities.ts'

/** The CAs of ssh of a running edge, as they take over from each other. */
export class LiveSshAuthorities implements SshAuthorities, Disposable {
  readonly #live: LiveGenerations<SshGenerationKind, SshAuthority>
  /** Signed once for all who ask. */
  readonly #lists = new Map<SshAuthorityKind, readonly string[]>()
  readonly #domain: string

  private constructor(dataDir: string, { domain, lock, clock, log }: LiveSshAuthoritiesParts) {
    const kinds = SSH_AUTHORITY_KINDS.map(sshGenerationKind)
    const load = (kind: SshGenerationKind, name: string) => loadSshAuthority(dataDir, kind, { name, lock })
    this.#live = new LiveGenerations(dataDir, { kinds, load, clock, log })
    this.#live.onChanged(() => this.#lists.clear())
    this.#domain = domain
  }

  /** Makes those that are missing, and looks after them from then on.
   *  @throws as `openSshAuthorities` */
  static async open(
    dataDir: string,
    keyType: SshCaKeyType,
    parts: LiveSshAuthoritiesParts,
  ): Promise<LiveSshAuthorities> {
    await openSshAuthorities(dataDir, keyType, parts.lock, parts.clock())
    const opened = new LiveSshAuthorities(dataDir, parts)
    await opened.#live.start()
    return opened
  }

  get user(): SshAuthority {
    return this.#live.signing('ssh-user')
  }
  get host(): SshAuthority {
    return this.#live.signing('ssh-host')
  }

  /** Oldest first; the one that signs is among them. */
  trusted(kind: SshAuthorityKind): readonly SshAuthority[] {
    return this.#live.trusted(sshGenerationKind(kind)).map(({ authority }) => authority)
  }

  /** Whom a server believes that never heard of a rotation and does not say: the old one, for as long as a certificate of
   *  it can be valid, then the one that signs.
   *  @param ttlMs of user certificates */
  usersCaOfOldServers(now: number, ttlMs: number): SshAuthority {
    const dated = this.#live.trusted('ssh-user')
    const signing = dated.find(({ authority }) => authority === this.user)
    return signing && now >= signing.signsFrom + ttlMs ? this.user : dated[0]!.authority
  }

  /** All that are believed, as lines of OpenSSH. */
  lines(kind: SshAuthorityKind): string[] {
    return this.trusted(kind).map(({ line }) => line)
  }

  /** Those that are believed or will be, with their dates and named by this. */
  dated(kind: SshAuthorityKind, nameOf: (authority: SshAuthority) => string): Generation[] {
    return this.#live.dated(sshGenerationKind(kind), nameOf)
  }

  /** Which there are and until when, once for each of them, signed by that one. */
  signedLists(kind: SshAuthorityKind): readonly string[] {
    const known = this.#lists.get(kind)
    if (known) return known
    const dated = this.dated(kind, ({ line }) => line)
    const authorities = dated.map(({ name: ca, signsFrom, trustedUntil }) => ({
      ca,
      signsFrom,
      trustedUntil,
    }))
    const list = { kind, domain: this.#domain, authorities }
    const signed = this.trusted(kind).map(({ publicKey, signingKey }) =>
      signSshAuthorityList(list, { type: publicKey.type, key: signingKey }),
    )
    this.#lists.set(kind, signed)
    return signed
  }

  /** Called when another CA signs, or others are believed. */
  onChanged(listener: () => void): void {
    this.#live.onChanged(listener)
  }

  [Symbol.dispose](): void {
    this.#live[Symbol.dispose]()
  }
}

export interface LiveSshAuthoritiesParts extends LiveAuthoritiesParts {
  /** The edge's, which stands in what they sign about themselves. */
  domain: string
}
