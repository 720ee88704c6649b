import type { Kysely } from 'kysely'
import { contextOf } from '../policy/context.ts'
import { decide } from '../policy/decide.ts'
import { findIdentity } from '../store/identities.ts'
import type { Database } from '../store/schema.ts'
import { findServiceById } from '../store/services.ts'
import { findSession } from '../store/sessions.ts'
import {
  listLiveSshCertificates,
  revokeSshCertificates,
  type SshCertificateRecord,
} from '../store/ssh-certificates.ts'

/** Whose certificates to look at: of one service, of one person, or all. */
export interface SshChange {
  serviceId?: string
  identityId?: string
}

/** More than these are one change of everything. */
const MAX_OWED = 1_000

/** Revokes the ssh certificates that would not be issued any more: what a change does to live flows it does to them.
 *  What the store did not take is owed until it does, or the edge stops: then they last until they expire. */
export class SshWithdrawals {
  readonly #db: Kysely<Database>
  readonly #clock: () => number
  readonly #onFailed: (error: unknown) => void
  readonly #owed = new Map<string, SshChange>()

  constructor(parts: { db: Kysely<Database>; clock: () => number; onFailed: (error: unknown) => void }) {
    this.#db = parts.db
    this.#clock = parts.clock
    this.#onFailed = parts.onFailed
  }

  /** Never throws: the change itself is made. */
  async withdraw(changed: SshChange): Promise<void> {
    await this.#withdrawOrOwe(changed).catch(() => {})
  }

  /** Tries again what is owed. @throws what the store throws: no list of revoked certificates is whole before */
  async settle(): Promise<void> {
    for (const [name, changed] of [...this.#owed]) {
      await this.#withdrawOrOwe(changed) // owed meanwhile: another list must not be written without it
      if (this.#owed.get(name) === changed) this.#owed.delete(name) // and not owed once more
    }
  }

  async #withdrawOrOwe(changed: SshChange): Promise<void> {
    try {
      await withdrawSsh(this.#db, changed, this.#clock())
    } catch (error) {
      this.#owe(changed)
      this.#onFailed(error)
      throw error
    }
  }

  #owe(changed: SshChange): void {
    const isFull = this.#owed.size >= MAX_OWED
    if (isFull) this.#owed.clear()
    const owed = isFull ? {} : changed
    this.#owed.set(JSON.stringify([owed.serviceId, owed.identityId]), owed)
  }
}

/** Asked anew for each certificate, with the address and the login that it was issued to. */
async function withdrawSsh(db: Kysely<Database>, changed: SshChange, now: number): Promise<void> {
  for (const certificate of await listLiveSshCertificates(db, changed, now)) {
    if (await isStillAdmitted(db, certificate, now)) continue
    await revokeSshCertificates(db, { serial: certificate.serial }, { reason: 'not admitted', now })
  }
}

async function isStillAdmitted(
  db: Kysely<Database>,
  { identityId, serviceId, sessionId, clientAddress, keyId }: SshCertificateRecord,
  now: number,
): Promise<boolean> {
  const identity = await findIdentity(db, identityId)
  const service = await findServiceById(db, serviceId)
  const session = await findSession(db, sessionId ?? '')
  if (!identity || !service || !session || identity.email !== keyId) return false
  return (await decide(db, identity, service, contextOf(session, clientAddress), now)).allowed
}
