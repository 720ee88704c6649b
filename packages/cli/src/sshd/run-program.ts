import { execFile } from 'node:child_process'
import { accessSync, constants } from 'node:fs'
import path from 'node:path'
import { PosternError } from '@postern/shared/errors'

/** Programs of OpenSSH and of the system, run to their end. */

export interface Outcome {
  /** null when it could not be started, or took too long. */
  code: number | null
  stdout: string
  stderr: string
}

const TIMEOUT_MS = 20_000
const MAX_OUTPUT_BYTES = 1024 * 1024
/** Servers lie where only root's PATH leads. */
const MORE_FOLDERS = ['/usr/sbin', '/usr/local/sbin', '/sbin']

/** Never throws for an exit code. Nothing is read from the terminal. */
export function runProgram(
  file: string,
  args: readonly string[],
  { timeoutMs = TIMEOUT_MS, env = process.env }: { timeoutMs?: number; env?: NodeJS.ProcessEnv } = {},
): Promise<Outcome> {
  return new Promise((resolve) => {
    const options = { env, timeout: timeoutMs, killSignal: 'SIGKILL', maxBuffer: MAX_OUTPUT_BYTES } as const
    const child = execFile(file, [...args], options, (error, stdout, stderr) => {
      const code = error ? (typeof error.code === 'number' ? error.code : null) : 0
      resolve({ code, stdout, stderr: code === null ? `${stderr}${error!.message}` : stderr })
    })
    child.stdin?.on('error', () => {})
    child.stdin?.end()
  })
}

/** @returns undefined when this machine has no such program */
export function findProgram(name: string, searchPath: string = process.env.PATH ?? ''): string | undefined {
  for (const folder of [...searchPath.split(path.delimiter), ...MORE_FOLDERS]) {
    const file = path.join(folder, name)
    if (path.isAbsolute(file) && isExecutable(file)) return file
  }
  return undefined
}

/** @throws SSHD_SETUP_FAILED */
export function requireProgram(name: string): string {
  const file = findProgram(name)
  if (file !== undefined) return file
  throw new PosternError('SSHD_SETUP_FAILED', `this machine has no program ${name}`, {
    hint: 'install OpenSSH: apt-get install openssh-server openssh-client',
  })
}

/** The last lines of what a program said, for a message. */
export function lastLines(text: string, count = 3): string {
  return text.trim().split(/\r?\n/).slice(-count).join('; ')
}

function isExecutable(file: string): boolean {
  try {
    accessSync(file, constants.X_OK)
    return true
  } catch {
    return false
  }
}
