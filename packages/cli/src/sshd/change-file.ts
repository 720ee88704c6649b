import { randomBytes } from 'node:crypto'
import {
  closeSync,
  existsSync,
  fchmodSync,
  fchownSync,
  fsyncSync,
  lstatSync,
  openSync,
  readFileSync,
  realpathSync,
  renameSync,
  rmSync,
  writeSync,
} from 'node:fs'
import path from 'node:path'
import { PosternError } from '@postern/shared/errors'
import { removeInclude } from './sshd-config.ts'
import type { ChangedFile } from './state.ts'

/** Files of the system that we change: whole or not at all, and back to every byte, mode and owner. */

const PUBLIC_FILE = 0o644

/** What is about to be written to a file, with what it takes to undo it. */
export function planChange(file: string, text: string): ChangedFile {
  const written = Buffer.from(text).toString('base64')
  if (!existsSync(file)) return { file, before: null, written, mode: PUBLIC_FILE, uid: -1, gid: -1 }
  const target = realpathSync(file) // a link stays one
  const { mode, uid, gid } = lstatSync(target)
  const before = readFileSync(target).toString('base64')
  return { file: target, before, written, mode: mode & 0o7777, uid, gid }
}

export function applyChange(change: ChangedFile): void {
  writeWhole(change.file, Buffer.from(change.written, 'base64'), change)
}

/** Puts back what was there. A file that somebody has changed since then keeps their lines and loses ours. */
export function undoChange(change: ChangedFile, dropInFile: string): void {
  const { file, before, written } = change
  const now = existsSync(file) ? readFileSync(file) : undefined
  if (before === null) return rmSync(file, { force: true })
  const isOurs = now === undefined || now.equals(Buffer.from(written, 'base64'))
  const bytes = isOurs ? Buffer.from(before, 'base64') : Buffer.from(removeInclude(String(now), dropInFile))
  if (!now?.equals(bytes)) writeWhole(file, bytes, change)
}

/** For sshd, which may read it at any moment. */
export function writePublicFile(file: string, content: string | Buffer): void {
  writeWhole(file, Buffer.from(content), { mode: PUBLIC_FILE, uid: -1, gid: -1 })
}

function writeWhole(
  file: string,
  bytes: Buffer,
  { mode, uid, gid }: Pick<ChangedFile, 'mode' | 'uid' | 'gid'>,
): void {
  // no name that an Include of *.conf would read
  const temporary = path.join(path.dirname(file), `.${path.basename(file)}.${randomBytes(6).toString('hex')}`)
  try {
    const descriptor = openSync(temporary, 'wx', 0o600)
    try {
      writeSync(descriptor, bytes)
      fchmodSync(descriptor, mode)
      if (uid >= 0) fchownSync(descriptor, uid, gid)
      fsyncSync(descriptor)
    } finally {
      closeSync(descriptor)
    }
    renameSync(temporary, file)
  } catch (cause) {
    rmSync(temporary, { force: true })
    throw new PosternError('SSHD_SETUP_FAILED', `cannot write ${file}: ${(cause as Error).message}`, {
      cause,
      hint: 'run it as root',
    })
  }
}
