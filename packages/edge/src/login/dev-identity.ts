import { parseEmailAddress } from '@postern/shared/email'
import type { UpstreamAccount } from './upstream.ts'

/** The development sign-in: a page that believes any address, in the place of the company's provider. Everything
 *  after it, the confirmation included, is the real thing. */

/** Dev accounts live under an issuer of their own, so that they can never be mistaken for a provider's.
 *  @throws ADDRESS_INVALID */
export function devAccount(origin: string, form: URLSearchParams): UpstreamAccount {
  const email = parseEmailAddress((form.get('email') ?? '').trim())
  return { issuer: devIssuer(origin), subject: email, email, groups: [] }
}

export function devIssuer(origin: string): string {
  return `${origin}/dev`
}
