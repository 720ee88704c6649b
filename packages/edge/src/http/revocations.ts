import { KRL_MEDIA_TYPE, RevocationRequest, type RevocationResponse } from '@postern/shared/api/ssh'
import { openKrl } from '../revocation/krl.ts'
import { revokePerson, revokeSerial } from '../revocation/revoke.ts'
import { clientAddress } from './client-address.ts'
import type { ApiHandler, ApiParts } from './parts.ts'
import { readBody } from './read-body.ts'

/** `GET /v1/ssh/krl`: without a session, servers have none. */
export function showKrl(parts: ApiParts): ApiHandler {
  const readKrl = openKrl(parts)
  return async (c) => {
    c.header('Content-Type', KRL_MEDIA_TYPE)
    return c.body(new Uint8Array(await readKrl()))
  }
}

/** `POST /v1/revocations` */
export function revoke(parts: ApiParts): ApiHandler {
  const { audit, roles } = parts
  return async (c) => {
    const { identity } = c.get('caller')
    const request = await readBody(c, RevocationRequest)
    let done: RevocationResponse
    if ('email' in request) {
      roles.require(identity, 'admin')
      done = await revokePerson(request.email, parts)
    } else {
      done = await revokeSerial(request.certificateSerial, identity, parts)
    }
    await audit.record({
      type: 'certificate.revoked',
      identityId: identity.id,
      email: identity.email,
      clientAddress: clientAddress(c),
      ...('email' in request ? { revokedEmail: request.email } : request),
      ...done,
    })
    return c.json(done)
  }
}
