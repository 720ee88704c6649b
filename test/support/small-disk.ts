import { execFileSync } from 'node:child_process'
import { closeSync, openSync, rmSync, statfsSync, truncateSync, writeSync } from 'node:fs'
import path from 'node:path'
import { makeTempFolder } from './temp-folder.ts'

/** A disk of its own, in memory, that can be filled up and made read-only. */
export interface SmallDisk extends Disposable {
  folder: string
  /** Leaves room for so many bytes, in whole pages. */
  fill(leftBytes?: number): void
  /** Takes back what `fill` has put there. */
  makeRoom(): void
  /** Nobody may have a file open for writing. */
  setReadOnly(isReadOnly: boolean): void
}

const PAGE_BYTES = 4_096

/** @throws when this machine does not let the test mount anything */
export function mountSmallDisk(mebibytes: number): SmallDisk {
  const folder = makeTempFolder('disk')
  asRoot('mount', '-t', 'tmpfs', '-o', `size=${mebibytes}m,mode=0777`, 'postern-test', folder)
  let isMounted = true
  const unmount = () => {
    if (isMounted) asRoot('umount', '--lazy', folder)
    isMounted = false
  }
  process.prependListener('exit', unmount) // the folder is removed at the exit too
  const ballast = path.join(folder, 'ballast')
  return {
    folder,
    fill(leftBytes = 0) {
      rmSync(ballast, { force: true })
      const { bavail, bsize } = statfsSync(folder)
      const bytes = bavail * bsize - Math.ceil(leftBytes / PAGE_BYTES) * PAGE_BYTES
      const file = openSync(ballast, 'w')
      for (let written = 0; written < bytes; ) written += writeSync(file, Buffer.alloc(bytes - written))
      closeSync(file)
    },
    makeRoom: () => truncateSync(ballast, 0),
    setReadOnly: (isReadOnly) => asRoot('mount', '-o', `remount,${isReadOnly ? 'ro' : 'rw'}`, folder),
    [Symbol.dispose]() {
      process.off('exit', unmount)
      unmount()
    },
  }
}

function asRoot(command: string, ...args: string[]): void {
  const words = process.getuid?.() === 0 ? [command, ...args] : ['sudo', '-n', command, ...args]
  try {
    execFileSync(words[0]!, words.slice(1), { stdio: ['ignore', 'ignore', 'pipe'] })
  } catch (cause) {
    throw new Error(`this test mounts disks of its own: run it as root, or allow sudo (${words.join(' ')})`, {
      cause,
    })
  }
}
