import type { EdgeResponse } from '@postern/shared/api/session'
import { CLIENT_ID } from '../login/issuer.ts'
import type { ApiHandler, ApiParts } from './parts.ts'

export function describeEdge({ config, origin, version, clock }: ApiParts): ApiHandler {
  return (c) =>
    c.json({
      domain: config.domain,
      issuer: origin(),
      clientId: CLIENT_ID,
      version,
      now: clock(),
    } satisfies EdgeResponse)
}

/** `GET /v1/flow-identity-keys`: with which services check who comes. While one takes over from another both are
 *  there. */
export function showFlowIdentityKeys({ identityKeys }: Pick<ApiParts, 'identityKeys'>): ApiHandler {
  return (c) => c.json({ keys: identityKeys.jwks() })
}
