import type { EdgeResponse } from '@postern/shared/api/session'
import { CLIENT_ID } from '../login/issuer.ts'
import type { ApiHandler, ApiParts } from './parts.ts'

export function describeEdge(
  parts: Pick<ApiParts, 'config' | 'origin' | 'version' | 'clock' | 'edgeRoots'>,
): ApiHandler {
  const { config, origin, version, clock, edgeRoots } = parts
  return (c) => {
    const authorities = edgeRoots().map(({ certificatePem, crossPem }) => ({
      certificate: certificatePem,
      ...(crossPem === undefined ? {} : { crossCertificate: crossPem }),
    }))
    return c.json({
      domain: config.domain,
      issuer: origin(),
      clientId: CLIENT_ID,
      version,
      now: clock(),
      ...(authorities.length === 0 ? {} : { authorities }),
    } satisfies EdgeResponse)
  }
}

/** `GET /v1/flow-identity-keys`: with which services check who comes. While one takes over from another both are
 *  there. */
export function showFlowIdentityKeys({ identityKeys }: Pick<ApiParts, 'identityKeys'>): ApiHandler {
  return (c) => c.json({ keys: identityKeys.jwks() })
}
