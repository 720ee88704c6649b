import { readFileSync, type Stats, statSync } from 'node:fs'
import { stat } from 'node:fs/promises'
import { setTimeout as wait } from 'node:timers/promises'
import { unreadableFile } from '@postern/shared/unreadable-file'

/** The text of a file that somebody edits while a command runs. Looks at the file itself, not for notices of the system:
 *  those are lost where an editor puts a new file in its place, behind links and on network disks. */

const LOOK_EVERY_MS = 500

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
   *  @throws what the system says */
  read(): string {
    this.#read = fingerprint(statSync(this.#file))
    return readFileSync(this.#file, 'utf8')
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

function fingerprint({ dev, ino, size, mtimeMs, ctimeMs }: Stats): string {
  return [dev, ino, size, mtimeMs, ctimeMs].join(' ')
}
