import type { EdgeResponse } from '@postern/shared/api/session'
import { flowIdentityJwk } from '@postern/shared/proxy-protocol/flow-identity'
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

/** `GET /v1/flow-identity-keys`: with which services check who comes. A list, so that there can be an old one and a new
 *  one. */
export function showFlowIdentityKeys({ identityKey }: Pick<ApiParts, 'identityKey'>): ApiHandler {
  const keys = { keys: [flowIdentityJwk(identityKey.key)] }
  return (c) => c.json(keys)
}
