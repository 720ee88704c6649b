import type { ErrorCode } from '@postern/shared/errors'
import type { AuditEvent, EnrollTokenRefused, FlowRefused } from './event.ts'

const MINUTE_MS = 60_000
const MAX_ADDRESSES = 10

export type StrangersRefusal = FlowRefused | EnrollTokenRefused

/** Whether nobody is named: who came is not known, nor whose token it was. */
export function isStrangersRefusal(event: AuditEvent): event is StrangersRefusal {
  if (event.type === 'flow.refused') return event.identityId === undefined
  return event.type === 'enroll_token.refused' && event.tokenId === undefined
}

interface Counted {
  type: StrangersRefusal['type']
  code: ErrorCode
  count: number
  since: number
  clientAddresses: string[]
}

/** Refusals of strangers, counted per type, code and minute: anybody can cause them at any rate, so they must not cost
 *  a row each. The codes are a short list and the addresses are cut, so this stays small as well. */
export class StrangerCounts {
  #counts = new Map<string, Counted>()

  add(event: StrangersRefusal, now: number): void {
    const since = now - (now % MINUTE_MS)
    const key = `${event.type} ${event.code} ${since}`
    const counted: Counted = this.#counts.get(key) ?? {
      type: event.type,
      code: event.code,
      since,
      count: 0,
      clientAddresses: [],
    }
    counted.count += event.count ?? 1
    for (const address of event.clientAddresses ?? [hostOf(event.clientAddress)]) {
      const isNew = address !== undefined && !counted.clientAddresses.includes(address)
      if (isNew && counted.clientAddresses.length < MAX_ADDRESSES) counted.clientAddresses.push(address)
    }
    this.#counts.set(key, counted)
  }

  /** Takes the minutes that are over; all of them without `now`. */
  take(now: number = Number.POSITIVE_INFINITY): StrangersRefusal[] {
    const over = [...this.#counts].filter(([, counted]) => counted.since + MINUTE_MS <= now)
    for (const [key] of over) this.#counts.delete(key)
    return over.map(([, counted]) => counted)
  }

  /** Puts back what could not be written. */
  restore(events: readonly StrangersRefusal[]): void {
    for (const event of events) this.add(event, event.since ?? 0)
  }
}

/** Without the port, which is new with every connection. A bare IPv6 address has no port, but more colons. */
function hostOf(address: string | undefined): string | undefined {
  return address?.replace(/^(\[[^\]]*\]|[^:]*):\d+$/, '$1')
}
