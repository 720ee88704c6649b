import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { lstatSync, rmSync, type Stats, statSync } from 'node:fs'
import net from 'node:net'
import path from 'node:path'
import { PosternError } from '@postern/shared/errors'
import { stateFolder } from '../credentials/home.ts'
import { type Lock, takeLock } from '../credentials/lock.ts'

/** The file of a listener's socket, before it is made. What a program left behind that was killed makes way; what
 *  somebody uses, what is no socket, and what is another user's stays. */

/** Long enough for another listener that begins at the same moment. */
const LOCK_TIMEOUT_MS = 10_000
const WRITABLE_BY_ALL = 0o002
const STICKY = 0o1000

/** Held while the socket is made: of two listeners that find the same remains, one must not remove the other's new
 *  socket.
 *  @throws LISTEN_FAILED when the file has to stay as it is */
export async function claimSocketFile(file: string): Promise<Lock> {
  refuseOpenFolder(path.dirname(file))
  const name = createHash('sha256').update(file).digest('hex').slice(0, 32)
  const lock = await takeLock(path.join(stateFolder(), 'listeners', `${name}.lock`), {
    timeoutMs: LOCK_TIMEOUT_MS,
  })
  try {
    await removeRemains(file)
    return lock
  } catch (error) {
    lock[Symbol.dispose]()
    throw error
  }
}

/** Whoever may write there could put a socket of their own in its place, and programs would talk to that. */
function refuseOpenFolder(folder: string): void {
  const stats = statSync(folder)
  if (!stats.isDirectory()) throw refused(folder, 'it is no folder')
  if (stats.mode & WRITABLE_BY_ALL && !(stats.mode & STICKY)) {
    throw refused(folder, 'everybody on this machine may write to that folder')
  }
}

async function removeRemains(file: string): Promise<void> {
  const stats = lstatSync(file, { throwIfNoEntry: false })
  if (!stats) return
  if (!stats.isSocket()) throw refused(file, `${describeKind(stats)} has that name, and stays as it is`)
  if (stats.uid !== process.geteuid?.()) throw refused(file, `it is a socket of user ${stats.uid}`)
  if (await isAnswered(file)) throw refused(file, 'another program listens there')
  rmSync(file)
}

/** Nobody is behind a socket that refuses: it was left behind. */
async function isAnswered(file: string): Promise<boolean> {
  const socket = net.connect({ path: file })
  try {
    await once(socket, 'connect')
    return true
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    return code !== 'ECONNREFUSED' && code !== 'ENOENT'
  } finally {
    socket.destroy()
  }
}

function describeKind(stats: Stats): string {
  if (stats.isDirectory()) return 'a folder'
  return stats.isSymbolicLink() ? 'a link' : 'a file'
}

function refused(file: string, reason: string): PosternError {
  return new PosternError('LISTEN_FAILED', `cannot listen on unix:${file}: ${reason}`, {
    hint: 'name another file, in a folder of your own',
  })
}
