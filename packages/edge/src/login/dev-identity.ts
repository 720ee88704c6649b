import { parseEmailAddress } from '@postern/shared/email'
import { readGroups, readMethods } from './provider-claims.ts'
import type { UpstreamAccount } from './upstream.ts'

/** The development sign-in: a page that believes any address, in the place of the company's provider. Everything
 *  after it, the confirmation included, is the real thing. */

/** The page asks for the address; programs may also send `groups` and `amr`, once or several times, each with
 *  entries between commas. Dev accounts live under an issuer of their own, so that they can never be mistaken for a provider's.
 *  @throws ADDRESS_INVALID · LOGIN_REFUSED groups or methods that no provider may send either */
export function devAccount(origin: string, form: URLSearchParams): UpstreamAccount {
  const email = parseEmailAddress((form.get('email') ?? '').trim())
  const entries = { groups: listOf(form, 'groups'), amr: listOf(form, 'amr') }
  const groups = readGroups(entries, 'groups')
  return { issuer: devIssuer(origin), subject: email, email, groups, amr: readMethods(entries) }
}

function listOf(form: URLSearchParams, member: string): string[] {
  const entries = form.getAll(member).flatMap((text) => text.split(','))
  return entries.map((entry) => entry.trim()).filter((entry) => entry !== '')
}

export function devIssuer(origin: string): string {
  return `${origin}/dev`
}
