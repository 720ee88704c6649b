import { domainOf } from '@postern/shared/email'
import type { AllowList, Identity } from '@postern/shared/identity'

/** Allow or deny, with the rule that decided: for the audit log and whoever may read it, never for the person. */
export interface Decision {
  allowed: boolean
  /** `any authenticated`, `email domain mycorp.com`, `email address x@y.z`, or `no rule admits`. */
  rule: string
}

/** Decides for one identity. Pure; whatever no rule admits is denied. Domains match exactly: a sub-domain is
 *  another domain. */
export function evaluate(allow: AllowList, identity: Pick<Identity, 'email'>): Decision {
  if (allow.emailAddresses.includes(identity.email)) {
    return { allowed: true, rule: `email address ${identity.email}` }
  }
  const domain = domainOf(identity.email)
  if (allow.emailDomains.includes(domain)) return { allowed: true, rule: `email domain ${domain}` }
  if (allow.anyAuthenticated) return { allowed: true, rule: 'any authenticated' }
  return { allowed: false, rule: 'no rule admits' }
}
