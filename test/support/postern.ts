import { fileURLToPath } from 'node:url'
import { quoteForShell } from '../../demo/dev-login.ts'
import { Program, type ProgramResult } from '../../demo/program.ts'

export const POSTERN: string = fileURLToPath(new URL('../../packages/cli/bin/postern.js', import.meta.url))

export interface PosternOptions {
  /** The person's state folder, POSTERN_HOME. Another folder is another person. */
  home: string
  /** Given at once and closed. Left out: `runPostern` gives an empty input, `spawnPostern` leaves it open. */
  stdin?: string | Uint8Array
  env?: NodeJS.ProcessEnv
  /** Another build of `postern`. */
  program?: string
  /** The program that opens a sign-in page, see dev-browser.ts. Left out: there is no browser. */
  browser?: string
  /** Runs it on a terminal of its own: stdout and stderr arrive together in `stdout`. */
  pty?: boolean
  /** false: read stdout yourself from `child.stdout`. */
  collectStdout?: boolean
  /** `runPostern` only: killed after this. 60 s by default. */
  timeoutMs?: number
}

/** Runs a command of the built CLI to its end. Never throws for an exit code. */
export async function runPostern(args: readonly string[], options: PosternOptions): Promise<ProgramResult> {
  const program = spawnPostern(args, { stdin: '', ...options })
  const timer = setTimeout(() => program.signal('SIGKILL'), options.timeoutMs ?? 60_000)
  const result = await program.ended
  clearTimeout(timer)
  return result
}

/** Starts a command of the built CLI. Without `pty` it has no terminal, not even as its controlling one. */
export function spawnPostern(args: readonly string[], options: PosternOptions): Program {
  const programOptions = {
    env: posternEnv(options),
    ...(options.stdin === undefined ? {} : { stdin: options.stdin }),
    ...(options.collectStdout === undefined ? {} : { collectStdout: options.collectStdout }),
  }
  const command = [process.execPath, options.program ?? POSTERN, ...args]
  if (!options.pty) return new Program(process.execPath, command.slice(1), programOptions)
  // script(1) gives the command a terminal, -e its exit code
  return new Program('script', ['-qec', command.map(quoteForShell).join(' '), '/dev/null'], programOptions)
}

/** The environment of one person at one machine, with nothing of this machine's own browser or state. */
export function posternEnv(options: Pick<PosternOptions, 'home' | 'env' | 'browser'>): NodeJS.ProcessEnv {
  return {
    PATH: process.env.PATH,
    HOME: options.home,
    TERM: 'xterm',
    LANG: 'C.UTF-8',
    POSTERN_HOME: options.home,
    BROWSER: options.browser ?? '/bin/false',
    ...options.env,
  }
}
