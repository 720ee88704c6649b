import type { SshPublicKey } from '@postern/shared/certs/ssh-key'
import { writeKrl } from '@postern/shared/certs/ssh-krl'
import type { Kysely } from 'kysely'
import type { Database } from '../store/schema.ts'
import { readKrlVersion, readRevokedForSsh } from '../store/ssh-certificates.ts'

/** A certificate stays listed this long after its end: servers' clocks may be behind. */
const KEPT_AFTER_END_MS = 3_600_000
/** What has run out leaves the list at the latest after this. */
const MAX_AGE_MS = 60_000

interface WrittenKrl {
  version: number
  writtenAt: number
  bytes: Buffer
}

/** The list of revoked certificates as sshd reads it, of these CAs of users and no other: a server that met one in it which
 *  it does not believe would take none of it. Serials are random and never used twice, so every one stands under each CA.
 *  Anybody may ask for it, so it is written anew only when something was revoked, or once a minute. */
export function openKrl(parts: {
  db: Kysely<Database>
  clock: () => number
}): (authorities: readonly SshPublicKey[]) => Promise<Buffer> {
  const { db, clock } = parts
  const written = new Map<string, WrittenKrl>()
  return async (authorities) => {
    const now = clock()
    const version = await readKrlVersion(db)
    for (const [name, { writtenAt }] of written) if (now - writtenAt >= MAX_AGE_MS) written.delete(name)
    const name = authorities.map(({ blob }) => blob.toString('base64')).join(' ')
    const last = written.get(name)
    if (last?.version === version) return last.bytes
    const { serials, keyIds, ...revoked } = await readRevokedForSsh(db, now, KEPT_AFTER_END_MS)
    const bytes = writeKrl({
      version: BigInt(revoked.version),
      generatedAt: now,
      certificates: authorities.map(({ blob: ca }) => ({ ca, serials, keyIds })),
    })
    written.set(name, { version: revoked.version, writtenAt: now, bytes })
    return bytes
  }
}
