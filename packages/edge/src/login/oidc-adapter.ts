import type { PosternError } from '@postern/shared/errors'
import type { Kysely } from 'kysely'
import { type Adapter, type AdapterPayload, errors } from 'oidc-provider'
import { describeLock, refuseLocked } from '../revocation/locks.ts'
import {
  consumeOidcRecord,
  destroyOidcRecord,
  findOidcRecord,
  findOidcRecordByUid,
  findOidcRecordByUserCode,
  type OidcPayload,
  revokeOidcRecordsByGrant,
  upsertOidcRecord,
} from '../store/oidc-records.ts'
import { useOnce } from '../store/replay-guards.ts'
import type { Database } from '../store/schema.ts'
import type { Sessions } from './sessions.ts'

/** oidc-provider's storage: our tables, with three models that must not be stored plainly.
 *  - `Session`, the browser's, is never kept: the edge has no browser session that a later login could ride on.
 *  - `Grant` is as live as the session it belongs to, and ends it when it is destroyed.
 *  - `ReplayDetection` is one atomic insert: the library looks first and writes later, two could slip through. */
export function createOidcAdapter(parts: {
  db: Kysely<Database>
  clock: () => number
  sessions: Sessions
}): (model: string) => Adapter {
  const { db, clock, sessions } = parts

  function stored(model: string): Adapter {
    return {
      upsert: (id, payload, expiresIn) =>
        upsertOidcRecord(db, { model, id }, payload as OidcPayload, endOf(expiresIn, clock())),
      find: async (id) => asPayload(await findOidcRecord(db, { model, id }, clock())),
      findByUid: async (uid) => asPayload(await findOidcRecordByUid(db, { model, uid }, clock())),
      findByUserCode: async (userCode) =>
        asPayload(await findOidcRecordByUserCode(db, { model, userCode }, clock())),
      consume: async (id) => {
        // of two that race with one code the later must not get tokens as well
        if (!(await consumeOidcRecord(db, { model, id }, clock()))) {
          throw new errors.InvalidGrant('already used')
        }
      },
      destroy: (id) => destroyOidcRecord(db, { model, id }),
      revokeByGrantId: (grantId) => revokeOidcRecordsByGrant(db, grantId),
    }
  }

  function grants(): Adapter {
    const adapter = stored('Grant')
    return {
      ...adapter,
      find: async (id) => {
        const live = await sessions.findLive(id)
        if (!live) return undefined
        await refuseLocked(db, live.identity, clock()).catch((error: PosternError) => {
          if (error.code !== 'IDENTITY_LOCKED') throw error
          throw new errors.AccessDenied(describeLock(error))
        })
        return adapter.find(id)
      },
      destroy: async (id) => {
        await adapter.destroy(id)
        const session = await sessions.findByGrant(id)
        if (session) await sessions.end(session.id, 'revoked')
      },
    }
  }

  function replayGuards(): Adapter {
    return {
      ...nothing(),
      upsert: async (id, _payload, expiresIn) => {
        const isFirst = await useOnce(db, `token-endpoint:${id}`, clock() + (expiresIn ?? 600) * 1_000)
        if (!isFirst) throw new errors.InvalidGrant('DPoP proof was used before')
      },
    }
  }

  return (model) => {
    if (model === 'Session') return nothing()
    if (model === 'Grant') return grants()
    if (model === 'ReplayDetection') return replayGuards()
    return stored(model)
  }
}

function nothing(): Adapter {
  return {
    upsert: async () => {},
    find: async () => undefined,
    findByUid: async () => undefined,
    findByUserCode: async () => undefined,
    consume: async () => {},
    destroy: async () => {},
    revokeByGrantId: async () => {},
  }
}

function endOf(expiresInSeconds: number | undefined, now: number): number | undefined {
  return expiresInSeconds === undefined ? undefined : now + expiresInSeconds * 1_000
}

function asPayload(record: OidcPayload | undefined): AdapterPayload | undefined {
  return record as AdapterPayload | undefined
}
