import type { Session } from '../store/sessions.ts'
import type { PolicyContext } from './conditions.ts'

/** What policy reads of a request: the login behind it and the address it comes from.
 *  @param session of a person; a program has none, and nothing is known of a login then
 *  @param clientAddress `203.0.113.7:5044` or `[2001:db8::1]:5044` */
export function contextOf(
  session: Pick<Session, 'kind' | 'createdAt' | 'amr' | 'acr'> | undefined,
  clientAddress: string,
): PolicyContext {
  const sourceAddress = hostOf(clientAddress)
  if (!session) return { sourceAddress }
  return {
    sourceAddress,
    // what the provider says of its own login can be hours old after every sign-in here, and signing in again would
    // not help
    signedInAt: session.createdAt,
    // not said is not the same as none
    amr: session.amr.length > 0 ? session.amr : undefined,
    acr: session.acr,
    sessionKind: session.kind,
  }
}

function hostOf(address: string): string {
  const [, bracketed] = /^\[([^\]]+)\]/.exec(address) ?? []
  if (bracketed !== undefined) return bracketed
  const colon = address.lastIndexOf(':')
  return colon === address.indexOf(':') && colon >= 0 ? address.slice(0, colon) : address
}
