import { closeSync, fstatSync, openSync, readSync, type Stats } from 'node:fs'
import path from 'node:path'
import { PosternError } from '@postern/shared/errors'
import { unreadableFile } from '@postern/shared/unreadable-file'

const MAX_BYTES = 4_096

/** What a file holds, for the sentences about it. */
export interface Secret {
  /** `the enroll token` */
  called: string
  howToMake: string
  /** What to do when others can read it. */
  whenOpen: string
}

/** A short secret in a file, or in the pipe that a secret manager writes into. One that others can read is refused, not
 *  warned about: warnings are read after the break-in.
 *  @throws USAGE_INVALID it cannot be read, or not by its owner alone */
export function readPrivateFile(file: string, secret: Secret): string {
  let descriptor: number
  try {
    descriptor = openSync(file, 'r')
  } catch (cause) {
    throw unreadable(file, secret, cause)
  }
  try {
    // of the open file: what is looked at is what is read
    refuseOpen(file, secret, fstatSync(descriptor))
    return readBounded(file, secret, descriptor)
  } finally {
    closeSync(descriptor)
  }
}

function refuseOpen(file: string, secret: Secret, stats: Stats): void {
  if (!stats.isFile() && !stats.isFIFO()) throw unreadable(file, secret, new Error('it is no file'))
  if (process.platform === 'win32' || (stats.mode & openBits(file)) === 0) return
  throw new PosternError('USAGE_INVALID', `${file} can be read by other users of this machine`, {
    hint: secret.whenOpen,
  })
}

/** Mode bits that a secret must not have. systemd lets a service read its credentials by an access list, and the mode
 *  of a file with one shows the list's mask where the group's bits are: 0440, though no group may read it. */
function openBits(file: string): number {
  const folder = process.env.CREDENTIALS_DIRECTORY
  return folder && path.dirname(path.resolve(file)) === path.resolve(folder) ? 0o037 : 0o077
}

function readBounded(file: string, secret: Secret, descriptor: number): string {
  const bytes = Buffer.alloc(MAX_BYTES + 1)
  let length = 0
  try {
    for (;;) {
      const count = readSync(descriptor, bytes, length, bytes.length - length, null)
      length += count
      if (count === 0 || length > MAX_BYTES) break
    }
  } catch (cause) {
    throw unreadable(file, secret, cause)
  }
  if (length > MAX_BYTES) throw unreadable(file, secret, new Error('it is too long for one'))
  return bytes.toString('utf8', 0, length)
}

function unreadable(file: string, { called, howToMake }: Secret, cause: unknown): PosternError {
  return unreadableFile(`${called} in ${file}`, cause, howToMake)
}
