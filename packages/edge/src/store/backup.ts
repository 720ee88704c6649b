import { statSync } from 'node:fs'
import { backup, DatabaseSync } from 'node:sqlite'
import { describeDiskFailure } from '@postern/shared/disk-failure'
import { PosternError } from '@postern/shared/errors'

/** All pages in one step: with several, every commit of the running edge starts the copy anew. Writers do not wait. */
const ALL_PAGES = 1_000_000_000

/** Copies a database that may be in use, and looks through the copy.
 *  @param to a file that is not there
 *  @throws STATE_INVALID */
export async function backUpSqlite(file: string, to: string): Promise<void> {
  try {
    statSync(file) // else SQLite makes an empty one
    const source = new DatabaseSync(file, { timeout: 5_000 })
    try {
      await backup(source, to, { rate: ALL_PAGES })
    } finally {
      source.close()
    }
    checkCopy(to)
  } catch (cause) {
    const failure = describeDiskFailure(cause)
    const reason = failure ? `${to} cannot be written: ${failure.reason}` : (cause as Error).message
    throw new PosternError('STATE_INVALID', `cannot copy the store ${file}: ${reason}`, {
      hint:
        failure?.hint ??
        'check that there is space, and that this user may read the store and write the new folder',
      cause,
    })
  }
}

function checkCopy(file: string): void {
  const copy = new DatabaseSync(file)
  try {
    const found = copy.prepare('pragma integrity_check').all().flatMap(Object.values)
    if (found.join() !== 'ok') throw new Error(`the copy is damaged: ${found.slice(0, 3).join(', ')}`)
  } finally {
    copy.close()
  }
}
