import {
  type ListLocksResponse,
  LockRequest,
  RevocationRequest,
  type RevocationResponse,
} from '@postern/shared/api/revocations'
import { KRL_MEDIA_TYPE } from '@postern/shared/api/ssh'
import { type SshPublicKey, sshFingerprint } from '@postern/shared/certs/ssh-key'
import { parseEmailAddress } from '@postern/shared/email'
import { PosternError } from '@postern/shared/errors'
import { openKrl } from '../revocation/krl.ts'
import { lockPerson, revokeRequested, revokeService } from '../revocation/revoke.ts'
import { findIdentity } from '../store/identities.ts'
import { listLocks, unlockAddress } from '../store/locks.ts'
import { clientAddress } from './client-address.ts'
import type { ApiHandler, ApiParts } from './parts.ts'
import { readBody } from './read-body.ts'
import { findOwn } from './services.ts'

/** `GET /v1/ssh/krl`: without a session, servers have none. No list rather than one that lacks what a change took
 *  back: a server keeps its last one, and says that it could not fetch. */
export function showKrl(parts: ApiParts): ApiHandler {
  const readKrl = openKrl(parts)
  return async (c) => {
    const authorities = findAsked(c.req.queries('ca'), parts)
    await parts.enforcement.settleSsh()
    c.header('Content-Type', KRL_MEDIA_TYPE)
    return c.body(new Uint8Array(await readKrl(authorities)))
  }
}

/** Those that the server believes and the edge does too; the others have nothing valid to revoke.
 *  @throws SSH_CA_UNKNOWN none of them */
function findAsked(
  asked: readonly string[] | undefined,
  { sshAuthorities, clock, config }: Pick<ApiParts, 'sshAuthorities' | 'clock' | 'config'>,
): SshPublicKey[] {
  if (!asked) return [sshAuthorities.usersCaOfOldServers(clock(), config.ssh.ttlMs).publicKey]
  const believed = sshAuthorities
    .trusted('user')
    .map(({ publicKey }) => publicKey)
    .filter(({ blob }) => asked.includes(sshFingerprint(blob)))
  if (believed.length > 0) return believed
  throw new PosternError('SSH_CA_UNKNOWN', 'none of the ssh CAs that this server believes is one of the edge')
}

/** `POST /v1/revocations` */
export function revoke(parts: ApiParts): ApiHandler {
  return async (c) => {
    const { identity } = c.get('caller')
    const request = await readBody(c, RevocationRequest)
    const receipt: RevocationResponse =
      'service' in request
        ? await revokeService(await findOwn(request.service, identity, parts), parts)
        : await revokeRequested(request, identity, parts)
    await parts.audit.record({
      type: 'revocation.done',
      identityId: identity.id,
      email: identity.email,
      clientAddress: clientAddress(c),
      revoked: request,
      receipt,
    })
    return c.json(receipt)
  }
}

/** `POST /v1/locks` */
export function lock(parts: ApiParts): ApiHandler {
  return async (c) => {
    const { identity } = c.get('caller')
    const { email, until, reason } = await readBody(c, LockRequest)
    const address = parseEmailAddress(email)
    const now = parts.clock()
    if (address === identity.email) {
      throw new PosternError('REQUEST_INVALID', 'whoever locks themselves cannot end it again', {
        hint: 'let another administrator do it',
      })
    }
    if (until !== undefined && until <= now) {
      throw new PosternError('REQUEST_INVALID', 'the end of the lock is over already', {
        hint: 'name a later moment, or none',
      })
    }
    const wanted = { email: address, until, reason, lockedAt: now, lockedBy: identity.id }
    const receipt = await lockPerson(wanted, parts)
    await parts.audit.record({
      type: 'identity.locked',
      identityId: identity.id,
      email: identity.email,
      clientAddress: clientAddress(c),
      lockedEmail: address,
      until,
      reason,
      receipt,
    })
    return c.json(receipt)
  }
}

/** `DELETE /v1/locks/:email` */
export function unlock({ audit, db }: ApiParts): ApiHandler {
  return async (c) => {
    const { identity } = c.get('caller')
    const lockedEmail = parseEmailAddress(c.req.param('email')!)
    if (!(await unlockAddress(db, lockedEmail))) {
      throw new PosternError('IDENTITY_UNKNOWN', `${lockedEmail} is not locked`)
    }
    const { id: identityId, email } = identity
    const by = { identityId, email, clientAddress: clientAddress(c) }
    await audit.record({ type: 'identity.unlocked', ...by, lockedEmail })
    return c.json({ email: lockedEmail })
  }
}

/** `GET /v1/locks` */
export function showLocks({ clock, db }: ApiParts): ApiHandler {
  return async (c) => {
    const locks = await Promise.all(
      (await listLocks(db, clock())).map(async ({ lockedBy, ...rest }) => ({
        ...rest,
        lockedBy: (await findIdentity(db, lockedBy))?.email ?? 'unknown',
      })),
    )
    return c.json({ locks } satisfies ListLocksResponse)
  }
}
