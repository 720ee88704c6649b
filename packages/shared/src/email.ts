import { PosternError } from './errors.ts'

/** An address in the one form Postern compares: plain ASCII, domain in lower case. */
export type EmailAddress = string & { readonly __brand: 'EmailAddress' }
/** A domain in the one form Postern compares: plain ASCII, lower case, no trailing dot. */
export type EmailDomain = string & { readonly __brand: 'EmailDomain' }

const LOCAL_PART = /^[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*$/
/** Asked before folding: `toLowerCase` makes a plain k of the Kelvin sign, this does not. */
const DOMAIN = /^(?=.{1,253}$)(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z](?:[a-z0-9-]{0,61}[a-z0-9])$/i

/** Reads a domain of an allow-list. Upper case is folded; wildcards, `@`, a trailing dot, non-ASCII letters and
 *  IP addresses are refused (an internationalized domain is written in its `xn--` form).
 *  @throws DOMAIN_INVALID */
export function parseEmailDomain(text: string): EmailDomain {
  if (!DOMAIN.test(text)) {
    throw new PosternError('DOMAIN_INVALID', `${JSON.stringify(text)} is not an email domain`)
  }
  return text.toLowerCase() as EmailDomain
}

/** Reads an address: an unquoted local part of at most 64 bytes and a domain (the dot-atom form of RFC 5321
 *  §4.1.2). The whole address is folded to lower case: no provider of today tells mailboxes apart by case,
 *  and people type addresses as they like.
 *  @throws ADDRESS_INVALID */
export function parseEmailAddress(text: string): EmailAddress {
  const at = text.indexOf('@')
  const local = text.slice(0, at)
  const domain = text.slice(at + 1)
  if (at < 1 || local.length > 64 || !LOCAL_PART.test(local) || !DOMAIN.test(domain)) {
    throw new PosternError('ADDRESS_INVALID', `${JSON.stringify(text)} is not an email address`)
  }
  return text.toLowerCase() as EmailAddress
}

export function domainOf(address: EmailAddress): EmailDomain {
  return address.slice(address.indexOf('@') + 1) as EmailDomain
}
