import type { AuditRead } from './event.ts'
import type { AuditLog } from './record.ts'

/** Who follows the log asks every second, and must not fill it by that. */
const WRITTEN_EVERY_MS = 10 * 60_000
const MAX_READERS = 1_000

export interface Reader {
  identity: { id: string; email: string }
  session: { id: string }
  clientAddress: string
  how: AuditRead['how']
  query: Readonly<Record<string, string>>
}

/** Reading the log is an event of the log: the first time is on disk before the answer, further ones of the same
 *  session are counted and written with the first that comes ten minutes later. */
export class AuditReads {
  readonly #audit: Pick<AuditLog, 'record'>
  readonly #clock: () => number
  readonly #readers = new Map<string, { writtenAt: number; since: number; count: number }>()

  constructor(audit: Pick<AuditLog, 'record'>, clock: () => number) {
    this.#audit = audit
    this.#clock = clock
  }

  /** @throws RECORD_FAILED */
  async note({ identity, session, clientAddress, how, query }: Reader): Promise<void> {
    const now = this.#clock()
    const name = `${how} ${session.id}`
    const known = this.#readers.get(name)
    if (known && now - known.writtenAt < WRITTEN_EVERY_MS) {
      if (known.count === 0) known.since = now
      known.count += 1
      return
    }
    await this.#audit.record({
      type: 'audit.read',
      identityId: identity.id,
      email: identity.email,
      sessionId: session.id,
      clientAddress,
      how,
      query,
      count: (known?.count ?? 0) + 1,
      since: known?.count ? known.since : now,
    })
    this.#readers.delete(name)
    this.#readers.set(name, { writtenAt: now, since: now, count: 0 })
    if (this.#readers.size > MAX_READERS) this.#readers.delete(this.#readers.keys().next().value!)
  }
}
