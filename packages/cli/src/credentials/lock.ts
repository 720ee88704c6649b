import { closeSync, mkdirSync, openSync } from 'node:fs'
import path from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { setTimeout as wait } from 'node:timers/promises'
import { describeDiskFailure } from '@postern/shared/disk-failure'
import { PosternError } from '@postern/shared/errors'

/** A lock between processes that the operating system takes back when its holder dies, however it dies. Node has
 *  no flock, and lock files with a pid need guesses about who is still alive; SQLite's exclusive transaction on an
 *  empty database is a proper file lock on every platform. Nothing is ever written into that database. */
export interface Lock {
  [Symbol.dispose](): void
}

const FIRST_POLL_MS = 20
const MAX_POLL_MS = 250
/** What `SQLITE_BUSY` looks like in node:sqlite. */
const BUSY = 5

/** @returns undefined when another process, or another part of this one, holds it */
export function tryLock(file: string): Lock | undefined {
  makeLockFile(file)
  const database = new DatabaseSync(file, { timeout: 0 })
  try {
    database.exec('PRAGMA journal_mode = MEMORY; BEGIN EXCLUSIVE')
    return { [Symbol.dispose]: () => database.close() }
  } catch (cause) {
    database.close()
    if ((cause as { errcode?: number }).errcode === BUSY) return undefined
    throw cannotLock(file, cause)
  }
}

function cannotLock(file: string, cause: unknown): PosternError {
  const failure = describeDiskFailure(cause)
  const reason = failure?.reason ?? (cause as Error).message
  return new PosternError('STATE_INVALID', `cannot lock ${file}: ${reason}`, {
    cause,
    ...(failure ? { hint: failure.hint } : {}),
  })
}

/** @param options.onWait called once when the lock is still not free after `waitQuietlyMs`, 0 by default
 *  @throws BUSY after `timeoutMs` */
export async function takeLock(
  file: string,
  options: {
    timeoutMs: number
    onWait?: () => void
    waitQuietlyMs?: number
    signal?: AbortSignal | undefined
  },
): Promise<Lock> {
  const startedAt = performance.now()
  const { timeoutMs, waitQuietlyMs = 0 } = options
  let { onWait } = options
  let pollMs = FIRST_POLL_MS
  for (;;) {
    const lock = tryLock(file)
    if (lock) return lock
    const waitedMs = performance.now() - startedAt
    if (waitedMs >= waitQuietlyMs) {
      onWait?.()
      onWait = undefined
    }
    if (waitedMs > timeoutMs) {
      throw new PosternError('BUSY', `another postern process holds ${file}`)
    }
    await wait(pollMs * (0.5 + Math.random()), undefined, { signal: options.signal })
    pollMs = Math.min(MAX_POLL_MS, pollMs * 1.5)
  }
}

/** Created by us first, for its mode. Never opened when it is there: closing any descriptor of a file drops every
 *  POSIX lock that this process has on it. */
function makeLockFile(file: string): void {
  try {
    mkdirSync(path.dirname(file), { recursive: true, mode: 0o700 })
    closeSync(openSync(file, 'wx', 0o600))
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw cannotLock(file, error)
  }
}
