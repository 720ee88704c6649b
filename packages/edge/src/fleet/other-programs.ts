import type { Logger } from '@postern/shared/logger'

/** Where the store is a file there are no other edges, but other programs of the host write to it: `postern-edge ca revoke`.
 *  They tell nobody, so this looks; where somebody has written, whatever lives here is read again. */
export interface OtherProgramsParts {
  /** Since it was asked last. */
  hasWritten: () => Promise<boolean>
  readEverything: () => Promise<void>
  log: Logger
}

const LOOK_EVERY_MS = 250

export function heedOtherPrograms({ hasWritten, readEverything, log }: OtherProgramsParts): Disposable {
  let isOwed = false
  let isOver = false
  let next: NodeJS.Timeout

  /** What cannot be read now is owed; whether the store is gone is for others to find. */
  async function look(): Promise<void> {
    try {
      isOwed = (await hasWritten()) || isOwed
      if (isOwed) {
        await readEverything()
        isOwed = false
        log.info('store.read_again')
      }
    } catch (error) {
      log.debug('store.not_read_again', { error })
    }
    if (!isOver) schedule()
  }

  function schedule(): void {
    next = setTimeout(() => void look(), LOOK_EVERY_MS).unref()
  }

  schedule()
  return {
    [Symbol.dispose]() {
      isOver = true
      clearTimeout(next)
    },
  }
}
