import { isIP } from 'node:net'
import type { ErrorCode } from '@postern/shared/errors'
import type { Conditions, SessionKind } from '@postern/shared/policy'
import { openNetworks } from '../limits/network.ts'
import { endOf } from './hours.ts'

/** What is known of the login behind a request, and where it comes from. A member that nobody told is left out. */
export interface PolicyContext {
  /** Address without a port. */
  sourceAddress?: string | undefined
  amr?: readonly string[] | undefined
  acr?: string | undefined
  /** When they signed in at this edge, epoch milliseconds. */
  signedInAt?: number | undefined
  sessionKind?: SessionKind | undefined
}

/** What one condition says: it holds, perhaps only until then; it does not; or what it asks for was never told. */
export type Verdict =
  | { holds: true; until?: number | undefined }
  | { holds: false; isUnknown: boolean; condition: keyof Conditions }

const HOLDS: Verdict = { holds: true }

/** Reads each given condition in turn. @returns the first that does not hold, or how long all of them will */
export function checkConditions(conditions: Conditions, context: PolicyContext, now: number): Verdict {
  let until: number | undefined
  for (const name of NAMES) {
    const wanted = conditions[name]
    if (wanted === undefined) continue
    const verdict = (CHECKS[name] as Check<unknown>)(wanted, context, now)
    if (!verdict.holds) return verdict
    until = earlier(until, verdict.until)
  }
  return { holds: true, until }
}

export function earlier(a: number | undefined, b: number | undefined): number | undefined {
  if (a === undefined || b === undefined) return a ?? b
  return Math.min(a, b)
}

/** What a person hears who would be admitted if only this condition held. */
export const CONDITION_CODES = {
  sourceNetworks: 'NETWORK_NOT_ALLOWED',
  hours: 'OUTSIDE_HOURS',
  amr: 'STRONGER_LOGIN_REQUIRED',
  acr: 'STRONGER_LOGIN_REQUIRED',
  maxLoginAgeMs: 'LOGIN_TOO_OLD',
  sessionKinds: 'SESSION_KIND_NOT_ALLOWED',
} as const satisfies Record<keyof Conditions, ErrorCode>

type Check<T> = (wanted: T, context: PolicyContext, now: number) => Verdict

const CHECKS: { [Name in keyof Conditions]-?: Check<NonNullable<Conditions[Name]>> } = {
  sourceNetworks(networks, { sourceAddress }) {
    if (sourceAddress === undefined || isIP(sourceAddress) === 0) return unknown('sourceNetworks')
    return openNetworks(networks)(sourceAddress) ? HOLDS : fails('sourceNetworks')
  },
  hours(windows, _context, now) {
    const ends = windows.map((window) => endOf(window, now)).filter((end) => end !== undefined)
    return ends.length > 0 ? { holds: true, until: Math.max(...ends) } : fails('hours')
  },
  amr(methods, { amr }) {
    if (amr === undefined) return unknown('amr')
    return methods.every((method) => amr.includes(method)) ? HOLDS : fails('amr')
  },
  acr(classes, { acr }) {
    if (acr === undefined) return unknown('acr')
    return classes.includes(acr) ? HOLDS : fails('acr')
  },
  maxLoginAgeMs(ageMs, { signedInAt }, now) {
    if (signedInAt === undefined) return unknown('maxLoginAgeMs')
    const until = signedInAt + ageMs
    return now < until ? { holds: true, until } : fails('maxLoginAgeMs')
  },
  sessionKinds(kinds, { sessionKind }) {
    if (sessionKind === undefined) return unknown('sessionKinds')
    return kinds.includes(sessionKind) ? HOLDS : fails('sessionKinds')
  },
}
const NAMES = Object.keys(CHECKS) as (keyof Conditions)[]

function fails(condition: keyof Conditions): Verdict {
  return { holds: false, isUnknown: false, condition }
}

function unknown(condition: keyof Conditions): Verdict {
  return { holds: false, isUnknown: true, condition }
}
