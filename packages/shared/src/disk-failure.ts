/** Why a file cannot be written, in words, and what whoever runs the program can do about it. */
export interface DiskFailure {
  reason: string
  hint: string
}

const FULL: DiskFailure = {
  reason: 'no space is left on its disk',
  hint: 'make room there and run the command again: what was there before is unchanged',
}
const QUOTA: DiskFailure = { ...FULL, reason: 'the quota of this user is used up' }
const READ_ONLY: DiskFailure = {
  reason: 'its disk is mounted read-only',
  hint: 'mount it so that it can be written, or name a folder elsewhere',
}
const FORBIDDEN: DiskFailure = {
  reason: 'this user may not write there',
  hint: 'let this user write there (chown, chmod), or name a folder elsewhere',
}
const BROKEN: DiskFailure = {
  reason: 'the disk answers with errors',
  hint: 'look at the system log: the disk may be failing; restore from a backup on another one',
}

const BY_CODE: Readonly<Record<string, DiskFailure>> = {
  ENOSPC: FULL,
  EDQUOT: QUOTA,
  EROFS: READ_ONLY,
  EACCES: FORBIDDEN,
  EPERM: FORBIDDEN,
  EIO: BROKEN,
}

/** For SQLite a disk that has no room for its shared memory fails as a broken one does. */
const FULL_OR_BROKEN: DiskFailure = {
  reason: 'its disk is full, or answers with errors',
  hint: 'make room there; if there is some, look at the system log: the disk may be failing',
}
/** SQLite's primary result codes; an extended one has them in its lowest byte. */
const BY_SQLITE_CODE: Readonly<Record<number, DiskFailure>> = { 8: READ_ONLY, 10: FULL_OR_BROKEN, 13: FULL }

/** @param error of the file system, or of SQLite
 *  @returns undefined when it is not the disk that failed */
export function describeDiskFailure(error: unknown): DiskFailure | undefined {
  if (!(error instanceof Error)) return undefined
  const { code, errcode, syscall } = error as NodeJS.ErrnoException & { errcode?: number }
  // what Node makes of a read-only disk when folders are made recursively; without, it says EROFS
  if (code === 'ENOENT' && syscall === 'mkdir') return READ_ONLY
  if (errcode !== undefined) return BY_SQLITE_CODE[errcode & 0xff]
  return code === undefined ? undefined : BY_CODE[code]
}
