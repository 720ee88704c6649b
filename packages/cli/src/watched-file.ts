import { closeSync, fstatSync, openSync, readSync, type Stats } from 'node:fs'
import { stat } from 'node:fs/promises'
import { setTimeout as wait } from 'node:timers/promises'
import { PosternError } from '@postern/shared/errors'
import { unreadableFile } from '@postern/shared/unreadable-file'

/** The text of a file that somebody edits while a command runs. Looks at the file itself, not for notices of the system:
 *  those are lost where an editor puts a new file in its place, behind links and on network disks. */

const LOOK_EVERY_MS = 500
const MAX_BYTES = 1024 * 1024
const WRITABLE_BY_ALL = 0o002

export interface Follower {
  signal: AbortSignal
  /** A new text. Never rejects; the next one waits for it. */
  onText: (text: string) => Promise<void>
  /** The file cannot be read any more. */
  onLost: (cause: unknown) => void
}

export class WatchedFile {
  readonly #file: string
  #read: string | undefined

  constructor(file: string) {
    this.#file = file
  }

  /** Changes after this one are followed.
   *  @throws what the system says · USAGE_INVALID */
  read(): string {
    const descriptor = openSync(this.#file, 'r')
    try {
      const stats = fstatSync(descriptor)
      this.#read = fingerprint(stats)
      refuseOpenFile(this.#file, stats)
      return readText(descriptor)
    } finally {
      closeSync(descriptor)
    }
  }

  /** For a start with a file that somebody has named.
   *  @throws USAGE_INVALID */
  readNamed(): string {
    try {
      return this.read()
    } catch (cause) {
      throw unreadableFile(this.#file, cause)
    }
  }

  /** Takes the next look for a change, whatever it finds. */
  lookAgain(): void {
    this.#read = undefined
  }

  /** Settles when its signal aborts. A file that still changes is being written, and left alone for now. */
  async follow({ signal, onText, onLost }: Follower): Promise<void> {
    let before = this.#read
    while (!signal.aborted) {
      await wait(LOOK_EVERY_MS, undefined, { signal }).catch(() => undefined)
      const now = await stat(this.#file).then(fingerprint, () => undefined)
      const isSettled = now === before
      before = now
      if (signal.aborted || now === this.#read || !isSettled) continue
      this.#read = now
      const text = this.#tryRead(onLost)
      if (text !== undefined) await onText(text)
    }
  }

  #tryRead(onLost: Follower['onLost']): string | undefined {
    try {
      return this.read()
    } catch (cause) {
      onLost(cause)
      return undefined
    }
  }
}

/** Whoever may write it says where people are led, and who is let in. */
function refuseOpenFile(file: string, stats: Stats): void {
  if (process.platform === 'win32' || !stats.isFile() || !(stats.mode & WRITABLE_BY_ALL)) return
  throw new PosternError('USAGE_INVALID', `cannot read ${file}: everybody on this machine may write to it`, {
    hint: `keep others from it: chmod o-w ${file}`,
  })
}

/** Not more than anybody writes by hand: a pipe or a device has no size to look at before. */
function readText(descriptor: number): string {
  const bytes = Buffer.allocUnsafe(MAX_BYTES + 1)
  let length = 0
  while (length <= MAX_BYTES) {
    const count = readSync(descriptor, bytes, length, bytes.length - length, null)
    if (count === 0) return bytes.toString('utf8', 0, length)
    length += count
  }
  throw new Error('it is larger than 1 MiB')
}

function fingerprint({ dev, ino, size, mtimeMs, ctimeMs }: Stats): string {
  return [dev, ino, size, mtimeMs, ctimeMs].join(' ')
}
