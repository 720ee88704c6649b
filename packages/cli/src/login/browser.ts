import { type ChildProcess, spawn } from 'node:child_process'
import { PosternError } from '@postern/shared/errors'
import { isWsl, readSurroundings, windowsOpeners } from './expect-browser.ts'

/** Starts the person's browser. `--browser` and `$BROWSER` come first and are started by us, without a shell: the
 *  `open` package ignores `$BROWSER` as soon as there is a display. */

/** A browser that still runs after this long has started; one that ended well before it handed the page on. */
const QUICK_EXIT_MS = 1_500

/** @param command `--browser CMD`
 *  @throws LOGIN_FAILED when nothing could be started; the URL was printed, so the login goes on */
export async function openBrowser(
  url: string,
  command: string | undefined,
  env: NodeJS.ProcessEnv = process.env,
): Promise<void> {
  const commands = command === undefined ? (env.BROWSER ?? '').split(':').filter(Boolean) : [command]
  for (const candidate of commands) {
    if (await startCommand(browserWords(candidate, url))) return
  }
  if (commands.length === 0 && (await startDefaultBrowser(url, env))) return
  throw new PosternError('LOGIN_FAILED', 'no browser could be started', {
    hint: 'open the page above yourself, on this machine',
  })
}

/** The words of a command with `%s` replaced by the URL, which is appended when there is no `%s`. */
export function browserWords(command: string, url: string): string[] {
  const words = splitWords(command)
  if (!words.some((word) => word.includes('%s'))) return [...words, url]
  return words.map((word) => word.replaceAll('%s', () => url))
}

/** Blanks separate words, single and double quotes keep them together, a backslash takes the next character as it
 *  is (not in single quotes). No variables, no substitution: this is not a shell. */
export function splitWords(command: string): string[] {
  const words: string[] = []
  for (const match of command.matchAll(/(?:[^\s"'\\]|"(?:[^"\\]|\\.)*"|'[^']*'|\\.)+/g)) {
    words.push(
      match[0].replace(
        /"((?:[^"\\]|\\.)*)"|'([^']*)'|\\(.)/g,
        (_, double: string, single: string, escaped: string) =>
          double?.replace(/\\(["\\])/g, '$1') ?? single ?? escaped,
      ),
    )
  }
  return words
}

async function startCommand([program, ...args]: string[]): Promise<boolean> {
  if (!program) return false
  // never our stdin or stdout: somebody's bytes pass there
  return startedWell(spawn(program, args, { stdio: 'ignore', detached: true }))
}

async function startDefaultBrowser(url: string, env: NodeJS.ProcessEnv): Promise<boolean> {
  const around = readSurroundings(env)
  if (isWsl(around)) {
    for (const opener of windowsOpeners(around)) {
      // explorer ends with 1 also when it has opened the page
      if ((await startCommand([opener, url])) || opener === 'explorer.exe') return true
    }
  }
  const { default: open } = await import('open')
  try {
    return await startedWell(await open(url))
  } catch {
    return false
  }
}

function startedWell(child: ChildProcess): Promise<boolean> {
  return new Promise((resolve) => {
    const settle = (good: boolean) => {
      clearTimeout(timer)
      child.unref()
      resolve(good)
    }
    const timer = setTimeout(() => settle(true), QUICK_EXIT_MS)
    child.once('error', () => settle(false))
    child.once('exit', (code) => settle(code === 0))
    if (child.exitCode !== null) settle(child.exitCode === 0)
  })
}
