import { existsSync, readFileSync, rmSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { PosternError } from '@postern/shared/errors'
import { replaceFile } from '@postern/shared/replace-file'
import { findProgram, lastLines, runProgram } from '../sshd/run-program.ts'
import { renderService, type UserService } from './unit.ts'

/** A service of the person's own under systemd: its unit, and what makes systemd run it. */

/** Until it is ready, or systemd gives it up. */
const START_TIMEOUT_MS = 120_000
const OURS = '# Written by postern; '

export function unitFile(name: string, env: NodeJS.ProcessEnv = process.env): string {
  const xdg = env.XDG_CONFIG_HOME
  const config = xdg && path.isAbsolute(xdg) ? xdg : path.join(os.homedir(), '.config')
  return path.join(config, 'systemd', 'user', `${name}.service`)
}

/** Arguments of systemctl. A service that runs already begins anew. */
export function installCommands(name: string): string[][] {
  const unit = `${name}.service`
  return [['daemon-reload'], ['enable', '--quiet', unit], ['restart', unit]].map((words) => [
    '--user',
    ...words,
  ])
}

/** @throws SERVICE_SETUP_FAILED; a service that systemd never heard of leaves no unit behind */
export async function installService(service: UserService): Promise<void> {
  const file = unitFile(service.name)
  const isNew = !refuseForeign(file)
  replaceFile(file, renderService('systemd', service), 0o644)
  for (const [index, words] of installCommands(service.name).entries()) {
    try {
      await systemctl(words)
    } catch (error) {
      if (isNew && index === 0) rmSync(file)
      throw error
    }
  }
}

/** @returns false when there was none
 *  @throws SERVICE_SETUP_FAILED */
export async function uninstallService(name: string): Promise<boolean> {
  const file = unitFile(name)
  if (!refuseForeign(file)) return false
  await systemctl(['--user', 'disable', '--quiet', '--now', `${name}.service`])
  rmSync(file)
  await systemctl(['--user', 'daemon-reload'])
  return true
}

/** @returns whether it is there */
function refuseForeign(file: string): boolean {
  if (!existsSync(file)) return false
  if (readFileSync(file, 'utf8').startsWith(OURS)) return true
  throw new PosternError(
    'SERVICE_SETUP_FAILED',
    `${file} is not a unit that postern made, and stays as it is`,
    {
      hint: 'move it away, or choose another name with --unit',
    },
  )
}

async function systemctl(words: readonly string[]): Promise<void> {
  const program = findProgram('systemctl')
  if (program === undefined) {
    throw new PosternError('SERVICE_SETUP_FAILED', 'this machine has no systemctl', {
      hint: 'for another system: --print launchd or --print windows',
    })
  }
  const { code, stderr } = await runProgram(program, words, { timeoutMs: START_TIMEOUT_MS })
  if (code === 0) return
  throw new PosternError(
    'SERVICE_SETUP_FAILED',
    `systemctl ${words.join(' ')} fails: ${lastLines(stderr) || 'it says nothing'}`,
  )
}
