import { stat } from 'node:fs/promises'
import { PosternError } from '@postern/shared/errors'
import type { Kysely } from 'kysely'
import { keepChain, openChainKeys } from '../audit/chain.ts'
import { type AuditLog, openAuditLog } from '../audit/record.ts'
import type { EdgeConfig } from '../config/config.ts'
import { keepHostUser } from '../host-user.ts'
import { openStore } from '../store/open.ts'
import type { Database } from '../store/schema.ts'

/** What a command needs that changes something beside the running edge: store, audit log, and whose name is on it. The
 *  edge sees by itself what is written. */
export interface HostParts extends AsyncDisposable {
  db: Kysely<Database>
  audit: AuditLog
  by: { identityId: string; email: string; clientAddress: string; sudoUser: string | undefined }
}

/** @throws USAGE_INVALID · STATE_INVALID */
export async function openOnHost({ dataDir, store, audit }: EdgeConfig): Promise<HostParts> {
  await requireOwner(dataDir)
  await using opened = new AsyncDisposableStack()
  const { db } = opened.use(await openStore(store))
  const { id, key } = await openChainKeys(dataDir, audit.checkpointKeyFile)
  const { checkpointRecords: everyRecords, checkpointIntervalMs: everyMs } = audit
  const chain = keepChain({ id, key, everyRecords, everyMs }, Date.now)
  const log = opened.use(openAuditLog(db, { chain }))
  const { id: identityId, email } = await keepHostUser(db, Date.now())
  const kept = opened.move()
  return {
    db,
    audit: log,
    by: { identityId, email, clientAddress: 'local', sudoUser: readSudoUser() },
    [Symbol.asyncDispose]: () => kept.disposeAsync(),
  }
}

/** Somebody else's files would be closed to the edge. Root's are not: they are given to the user of the folder.
 *  @throws USAGE_INVALID · STATE_INVALID */
export async function requireOwner(dataDir: string, user = process.geteuid?.()): Promise<void> {
  const { uid } = await stat(dataDir).catch((cause: NodeJS.ErrnoException) => {
    throw new PosternError('STATE_INVALID', `${dataDir} cannot be read (${cause.code})`, {
      hint: 'name the configuration of an edge that has run, and run this as its user',
      cause,
    })
  })
  if (user === undefined || user === 0 || user === uid) return
  throw new PosternError('USAGE_INVALID', `${dataDir} belongs to another user than the one of this command`, {
    hint: `run it as root, or as the user of the edge: sudo -u '#${uid}' postern-edge …`,
  })
}

/** Who has become this user. Whoever may, may write anything there: it is a note, not a proof. */
function readSudoUser(): string | undefined {
  const name = process.env.SUDO_USER
  return name !== undefined && /^[\w.@-]{1,64}$/.test(name) ? name : undefined
}
