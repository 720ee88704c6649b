import { writeKrl } from '@postern/shared/certs/ssh-krl'
import type { Kysely } from 'kysely'
import type { SshAuthorities } from '../ca/ssh-authorities.ts'
import type { Database } from '../store/schema.ts'
import { readKrlVersion, readRevokedForSsh } from '../store/ssh-certificates.ts'

/** A certificate stays listed this long after its end: servers' clocks may be behind. */
const KEPT_AFTER_END_MS = 3_600_000
/** What has run out leaves the list at the latest after this. */
const MAX_AGE_MS = 60_000

/** The list of revoked certificates as sshd reads it. Anybody may ask for it, so it is written anew only when
 *  something was revoked, or once a minute. */
export function openKrl(parts: {
  db: Kysely<Database>
  clock: () => number
  sshAuthorities: SshAuthorities
}): () => Promise<Buffer> {
  const { db, clock, sshAuthorities } = parts
  let last: { version: number; writtenAt: number; bytes: Buffer } | undefined
  return async () => {
    const now = clock()
    const version = await readKrlVersion(db)
    if (last && last.version === version && now - last.writtenAt < MAX_AGE_MS) return last.bytes
    const revoked = await readRevokedForSsh(db, now, KEPT_AFTER_END_MS)
    const bytes = writeKrl({
      version: BigInt(revoked.version),
      generatedAt: now,
      // of users only: this is what servers read, and a server that met another CA in it would not believe any of it
      certificates: [
        { ca: sshAuthorities.user.publicKey.blob, serials: revoked.serials, keyIds: revoked.keyIds },
      ],
    })
    last = { version: revoked.version, writtenAt: now, bytes }
    return bytes
  }
}
