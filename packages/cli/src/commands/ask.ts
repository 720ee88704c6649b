import type { Command } from 'commander'
import type { LoginPolicy } from '../credentials/fresh.ts'
import { hasTerminal } from '../io.ts'

/** Options of every command that may log in. */
export interface AskOptions {
  batch?: boolean | undefined
  interactive?: boolean | undefined
  /** A command, or false for `--no-browser`. */
  browser?: string | boolean | undefined
}

/** Whether somebody can be asked: a terminal, `--interactive`, or a browser named on this very command line.
 *  `$BROWSER` alone does not count: it is set in many places where nobody looks. `--batch` always wins. */
export function loginPolicy(options: AskOptions): LoginPolicy {
  const browser = typeof options.browser === 'string' ? options.browser : undefined
  return {
    mayAsk:
      options.batch !== true && (options.interactive === true || browser !== undefined || hasTerminal()),
    browser: options.browser === false ? false : browser,
  }
}

export function addAskOptions(command: Command): Command {
  return addBrowserOptions(command)
    .option('--batch', 'never sign in: fail at once when there is no session')
    .option('--interactive', 'sign in when needed, also without a terminal')
}

export function addBrowserOptions(command: Command): Command {
  return command
    .option(
      '--browser <command>',
      'command that opens a page; %s in it stands for the address (default: $BROWSER)',
    )
    .option(
      '--no-browser',
      'show a code to type on another machine, or the address of the page where the edge has codes off',
    )
}
