import type {
  AddressLimited,
  AuditEvent,
  ConnectorRefused,
  EnrollTokenRefused,
  FlowRefused,
  LoginRefused,
  RequestRefused,
} from './event.ts'

const MINUTE_MS = 60_000
/** Addresses, connectors and certificates that one event names. */
const MAX_NAMED = 10

export type StrangersRefusal =
  | AddressLimited
  | FlowRefused
  | ConnectorRefused
  | EnrollTokenRefused
  | LoginRefused
  | RequestRefused

/** Whether somebody without a right can cause this event as often as they like. */
export function isStrangersRefusal(event: AuditEvent): event is StrangersRefusal {
  switch (event.type) {
    case 'address.limited':
    case 'connector.refused':
      return true
    case 'flow.refused':
    case 'request.refused':
      return event.identityId === undefined
    case 'login.refused':
      return event.subject === undefined && event.email === undefined
    case 'enroll_token.refused':
      return event.tokenId === undefined
    default:
      return false
  }
}

interface Count {
  type: StrangersRefusal['type']
  code: StrangersRefusal['code']
  since: number
  count: number
  clientAddresses: string[]
  connectorIds: string[]
  certificateSerials: string[]
  limit: AddressLimited['limit'] | undefined
}

/** Refusals of strangers, counted per type, code, limit and minute: anybody can cause them at any rate, so they must not
 *  cost a row each. The codes are a short list and the names are cut, so this stays small as well. */
export class StrangerCounts {
  #counts = new Map<string, Count>()

  add(event: StrangersRefusal, now: number): void {
    const { type, code } = event
    const since = now - (now % MINUTE_MS)
    const limit = event.type === 'address.limited' ? event.limit : undefined
    const key = `${type} ${code} ${limit} ${since}`
    const counted = this.#counts.get(key) ?? {
      ...{ type, code, since, limit },
      ...{ count: 0, clientAddresses: [], connectorIds: [], certificateSerials: [] },
    }
    counted.count += event.count ?? 1
    addNames(counted.clientAddresses, event.clientAddresses ?? [hostOf(event.clientAddress)])
    if (event.type === 'connector.refused') {
      addNames(counted.connectorIds, event.connectorIds ?? [event.connectorId])
    }
    if (event.type === 'flow.refused') {
      addNames(counted.certificateSerials, event.certificateSerials ?? [event.certificateSerial])
    }
    this.#counts.set(key, counted)
  }

  /** Takes the minutes that are over; all of them without `now`. */
  take(now: number = Number.POSITIVE_INFINITY): StrangersRefusal[] {
    const over = [...this.#counts].filter(([, counted]) => counted.since + MINUTE_MS <= now)
    for (const [key] of over) this.#counts.delete(key)
    return over.map(([, counted]) => toEvent(counted))
  }

  /** Puts back what could not be written. */
  restore(events: readonly StrangersRefusal[]): void {
    for (const event of events) this.add(event, event.since ?? 0)
  }
}

function addNames(names: string[], more: readonly (string | undefined)[]): void {
  for (const name of more) {
    if (name !== undefined && names.length < MAX_NAMED && !names.includes(name)) names.push(name)
  }
}

function toEvent({ type, connectorIds, certificateSerials, limit, ...counted }: Count): StrangersRefusal {
  if (type === 'address.limited') return { type, ...counted, limit: limit! }
  if (type === 'connector.refused') return { type, ...counted, connectorIds }
  if (type === 'flow.refused') return { type, ...counted, certificateSerials }
  return { type, ...counted }
}

/** Without the port, which is new with every connection. A bare IPv6 address has no port, but more colons. */
function hostOf(address: string | undefined): string | undefined {
  return address?.replace(/^(\[[^\]]*\]|[^:]*):\d+$/, '$1')
}
