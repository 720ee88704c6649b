import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import path from 'node:path'

/** The folder that holds everything of one demo. It carries the number of the process that uses it, so that a
 *  second demo does not pull it away, and nobody else's folder is ever emptied. */

const MARK = 'demo.pid'

/** Empties or makes the folder.
 *  @throws when another demo runs there, or when it holds something that is no demo's */
export function takeDemoFolder(folder: string): void {
  const mark = path.join(folder, MARK)
  if (existsSync(mark)) {
    const pid = Number(readFileSync(mark, 'utf8'))
    if (isDemo(pid)) throw new Error(`another demo runs in ${folder} (process ${pid}): end it first`)
  } else if (existsSync(folder) && readdirSync(folder).length > 0) {
    throw new Error(`${folder} is not empty and no demo's: name another folder`)
  }
  rmSync(folder, { recursive: true, force: true })
  mkdirSync(folder, { recursive: true, mode: 0o700 })
  writeFileSync(mark, `${process.pid}\n`, { flag: 'wx' })
}

/** Process numbers are used again, so its command line is asked too, where the system shows it. */
function isDemo(pid: number): boolean {
  if (!Number.isSafeInteger(pid) || pid <= 0 || pid === process.pid) return false
  try {
    process.kill(pid, 0)
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM'
  }
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes('demo.ts')
  } catch {
    return true
  }
}
