import type { PosternError } from '@postern/shared/errors'
import type { DataPool } from './data-pool.ts'

/** Whether a connector's service takes connections. */
export interface TargetHealth {
  state: 'up' | 'down'
  code: string | undefined
  /** Epoch milliseconds. */
  since: number
}

/** One connector process that is connected now. Derived from its control connection and gone with it. */
export interface Attachment {
  readonly id: string
  readonly connectorId: string
  readonly serviceId: string
  readonly machine: string
  readonly clientAddress: string
  /** Which process it is, by its own word; older connectors do not say. Nobody is told. */
  readonly instanceId: string | undefined
  /** What it requires of this edge, among what this edge has. */
  readonly requires: ReadonlySet<string>
  /** When its certificate was issued, epoch milliseconds. */
  readonly issuedAt: number
  readonly pool: DataPool
  /** The last sign of life, by `performance.now()`. */
  heardAt: number
  /** Taken last until then, by `performance.now()`: it was asked and did not answer. */
  doubtedUntil: number
  /** As it said last; undefined while it has said nothing, as older ones do. */
  target: TargetHealth | undefined
  /** Why the edge ended it; undefined while it lives, and when it went by itself. */
  refusal: PosternError | undefined
  /** Whether it answers within this time: a machine can be gone without a FIN. */
  answers(timeoutMs: number): Promise<boolean>
  /** Takes it out of the registry and closes its pool: no flow is led to it any more. May be called again. */
  leave(reason: PosternError): void
  /** Tells the connector why and ends it. */
  refuse(reason: PosternError): void
  /** Ends it because the same process attached again: no refusal, the new one goes on. */
  replace(): void
  /** Says that the edge is about to stop. */
  announceDrain(): void
}

/** Who is attached for which service. The truth is the live connections; nothing here is written anywhere. */
export class ConnectorRegistry {
  readonly #byId = new Map<string, Attachment>()
  readonly #byService = new Map<string, Attachment[]>()

  add(attachment: Attachment): void {
    this.#byId.set(attachment.id, attachment)
    const others = this.#byService.get(attachment.serviceId)
    if (others) others.push(attachment)
    else this.#byService.set(attachment.serviceId, [attachment])
  }

  remove(attachment: Attachment): void {
    this.#byId.delete(attachment.id)
    const left = this.ofService(attachment.serviceId).filter((other) => other !== attachment)
    if (left.length > 0) this.#byService.set(attachment.serviceId, left)
    else this.#byService.delete(attachment.serviceId)
  }

  find(attachmentId: string): Attachment | undefined {
    return this.#byId.get(attachmentId)
  }

  ofConnector(connectorId: string): Attachment | undefined {
    return this.all().find((attachment) => attachment.connectorId === connectorId)
  }

  /** The best first: one that is not in doubt, then one whose service is there, then one that has a connection ready (a connector that hangs has none
   *  any more), then the least busy. */
  ofService(serviceId: string): Attachment[] {
    const attachments = this.#byService.get(serviceId) ?? []
    const isEmpty = ({ pool }: Attachment) => Number(pool.size.idle === 0)
    const now = performance.now()
    const isDown = ({ target }: Attachment) => Number(target?.state === 'down')
    const isDoubted = ({ doubtedUntil }: Attachment) => Number(doubtedUntil > now)
    return attachments.toSorted(
      (a, b) =>
        isDoubted(a) - isDoubted(b) ||
        isDown(a) - isDown(b) ||
        isEmpty(a) - isEmpty(b) ||
        a.pool.size.inUse - b.pool.size.inUse,
    )
  }

  all(): Attachment[] {
    return [...this.#byId.values()]
  }

  /** Ends every connector of a service. */
  refuseService(serviceId: string, reason: PosternError): void {
    for (const attachment of this.ofService(serviceId)) attachment.refuse(reason)
  }
}
