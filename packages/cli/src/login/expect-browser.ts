import { accessSync, constants, readFileSync } from 'node:fs'
import path from 'node:path'

/** Whether a browser can be expected where this process runs. A wrong yes costs the person a puzzled minute, so
 *  whoever sits elsewhere (ssh) or has no display is taken at the word of the environment. */

/** What is asked of the machine. */
export interface Surroundings {
  env: NodeJS.ProcessEnv
  platform: NodeJS.Platform
  /** `/proc/sys/kernel/osrelease`, empty where there is none. */
  kernel: string
  hasProgram(name: string): boolean
}

export function readSurroundings(env: NodeJS.ProcessEnv = process.env): Surroundings {
  return {
    env,
    platform: process.platform,
    kernel: process.platform === 'linux' ? readKernel() : '',
    hasProgram: (name) => isOnPath(name, env.PATH ?? ''),
  }
}

/** @param browser `--browser CMD`, or false for `--no-browser` */
export function expectsBrowser(browser: string | false | undefined, around: Surroundings): boolean {
  const { env, platform } = around
  if (browser === false) return false
  if (browser !== undefined || env.BROWSER) return true
  if (isInsideSsh(env)) return false
  if (isWsl(around)) return windowsOpeners(around).length > 0
  if (platform === 'darwin' || platform === 'win32') return true
  return Boolean(env.DISPLAY || env.WAYLAND_DISPLAY)
}

export function isInsideSsh(env: NodeJS.ProcessEnv): boolean {
  return Boolean(env.SSH_CONNECTION || env.SSH_TTY)
}

/** Linux inside Windows: there is no display, but the browser of Windows, which reaches our loopback. */
export function isWsl({ env, platform, kernel }: Surroundings): boolean {
  if (platform !== 'linux') return false
  return Boolean(env.WSL_DISTRO_NAME || env.WSL_INTEROP) || /microsoft/i.test(kernel)
}

/** Programs that open a page in Windows, the best first. */
export function windowsOpeners({ hasProgram }: Surroundings): string[] {
  return ['wslview', 'explorer.exe'].filter(hasProgram)
}

function readKernel(): string {
  try {
    return readFileSync('/proc/sys/kernel/osrelease', 'utf8')
  } catch {
    return ''
  }
}

function isOnPath(name: string, searchPath: string): boolean {
  return searchPath
    .split(path.delimiter)
    .filter(Boolean)
    .some((folder) => {
      try {
        accessSync(path.join(folder, name), constants.X_OK)
        return true
      } catch {
        return false
      }
    })
}
