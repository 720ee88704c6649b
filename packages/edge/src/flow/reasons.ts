import { PosternError } from '@postern/shared/errors'

/** What people hear of a flow that somebody took away: the same at every edge that ends one. */

const revoked = (message: string) => new PosternError('FLOW_REVOKED', message)

export const SESSIONS_REVOKED = revoked('your sessions were revoked')
export const SESSION_ENDED = revoked('the login behind this flow has ended')
export const CERTIFICATE_REVOKED = revoked('the certificate of this flow was revoked')
export const SERVICE_REVOKED = revoked('everything for this service was revoked')
export const SERVICE_GONE = revoked('the service was deleted')
export const UNKNOWN = revoked('whether the service is still available to you cannot be told')
export const LOCKED = new PosternError('IDENTITY_LOCKED', 'you are locked at this edge')
export const CONNECTOR_ENDED = new PosternError('FLOW_CUT', 'the connector of this flow was ended')

export function endedBy(email: string): PosternError {
  return revoked(`${email} has ended this flow`)
}
