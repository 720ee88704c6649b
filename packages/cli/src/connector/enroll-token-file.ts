import { closeSync, fstatSync, openSync, readSync, type Stats } from 'node:fs'
import path from 'node:path'
import { ENROLL_TOKEN_FORM } from '@postern/shared/api/enroll'
import { PosternError } from '@postern/shared/errors'
import { unreadableFile } from '../unreadable-file.ts'

const MAX_BYTES = 4_096

/** The token in a file, or in the pipe that a secret manager writes into. One that others can read is refused, not
 *  warned about: warnings are read after the break-in.
 *  @throws USAGE_INVALID it cannot be read, or not by its owner alone · ENROLL_TOKEN_INVALID it holds none */
export function readEnrollToken(file: string): string {
  const token = readOwn(file).trim()
  if (ENROLL_TOKEN_FORM.test(token)) return token
  // what stands there may be another secret: it is not repeated
  throw new PosternError('ENROLL_TOKEN_INVALID', `${file} holds no enroll token`)
}

function readOwn(file: string): string {
  let descriptor: number
  try {
    descriptor = openSync(file, 'r')
  } catch (cause) {
    throw unreadable(file, cause)
  }
  try {
    // of the open file: what is looked at is what is read
    refuseOpen(file, fstatSync(descriptor))
    return readBounded(file, descriptor)
  } finally {
    closeSync(descriptor)
  }
}

function refuseOpen(file: string, stats: Stats): void {
  if (!stats.isFile() && !stats.isFIFO()) throw unreadable(file, new Error('it is no file'))
  if (process.platform === 'win32' || (stats.mode & openBits(file)) === 0) return
  throw new PosternError('USAGE_INVALID', `${file} can be read by other users of this machine`, {
    hint: `make a new token, for this one may be known, and keep it in a file of mode 600: chmod 600 ${file}`,
  })
}

/** Mode bits that a secret must not have. systemd lets a service read its credentials by an access list, and the mode
 *  of a file with one shows the list's mask where the group's bits are: 0440, though no group may read it. */
function openBits(file: string): number {
  const folder = process.env.CREDENTIALS_DIRECTORY
  return folder && path.dirname(path.resolve(file)) === path.resolve(folder) ? 0o037 : 0o077
}

function readBounded(file: string, descriptor: number): string {
  const bytes = Buffer.alloc(MAX_BYTES + 1)
  let length = 0
  try {
    for (;;) {
      const count = readSync(descriptor, bytes, length, bytes.length - length, null)
      length += count
      if (count === 0 || length > MAX_BYTES) break
    }
  } catch (cause) {
    throw unreadable(file, cause)
  }
  if (length > MAX_BYTES) throw unreadable(file, new Error('it is too long for a token'))
  return bytes.toString('utf8', 0, length)
}

const HOW_TO_MAKE = 'make one with postern service enroll-token LABEL, and put it into a file of mode 600'

function unreadable(file: string, cause: unknown): PosternError {
  return unreadableFile(`the enroll token in ${file}`, cause, HOW_TO_MAKE)
}
