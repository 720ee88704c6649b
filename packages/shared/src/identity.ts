import type { EmailAddress } from './email.ts'

/** A person as the company's provider vouches for them. (issuer, subject) is who they are; the email is an
 *  attribute that policy reads. */
export interface Identity {
  /** The edge's own immutable id of (issuer, subject). */
  id: string
  issuer: string
  subject: string
  email: EmailAddress
  groups: readonly string[]
}

/** How a person signed in: what is known of one login, not of the person. What the provider did not say is empty or
 *  undefined; a rule that asks for it does not hold then. */
export interface SessionFacts {
  /** Methods of the sign-in at the provider (RFC 8176): `pwd`, `otp`, `hwk`, … */
  amr: readonly string[]
  /** Its assurance level, in the provider's own words. */
  acr: string | undefined
  /** When the person last proved to the provider who they are; epoch milliseconds, never later than the login. */
  authTime: number | undefined
  /** Signed in by the browser of this machine, or with a code typed into that of another one. */
  kind: 'browser' | 'device'
}

/** Who a service admits. Empty lists and `anyAuthenticated: false` admit nobody. */
export interface AllowList {
  emailDomains: readonly string[]
  emailAddresses: readonly string[]
  anyAuthenticated: boolean
}

/** Same rules, whatever their order. */
export function sameAllowList(a: AllowList, b: AllowList): boolean {
  const key = (list: AllowList) =>
    JSON.stringify([[...list.emailDomains].sort(), [...list.emailAddresses].sort(), list.anyAuthenticated])
  return key(a) === key(b)
}

/** One line for people: `domains mycorp.com; addresses contractor@example.com`. */
export function describeAllowList(list: AllowList): string {
  const parts: string[] = []
  if (list.anyAuthenticated) parts.push('anybody who signs in')
  if (list.emailDomains.length > 0) parts.push(`domains ${list.emailDomains.join(', ')}`)
  if (list.emailAddresses.length > 0) parts.push(`addresses ${list.emailAddresses.join(', ')}`)
  return parts.length > 0 ? parts.join('; ') : 'nobody'
}
