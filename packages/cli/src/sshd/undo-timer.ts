import { spawn } from 'node:child_process'
import { existsSync, rmSync, writeFileSync } from 'node:fs'
import { userInfo } from 'node:os'
import path from 'node:path'
import { setTimeout as wait } from 'node:timers/promises'
import { PosternError } from '@postern/shared/errors'
import type { SshdLayout } from './drop-in.ts'
import { findProgram, lastLines, runProgram } from './run-program.ts'

/** Starts the process that takes the change back: before anything is changed, and outside of the ssh session that
 *  asks for it. Whoever locks themselves out cannot undo anything by hand. */

const START_TIMEOUT_MS = 30_000

/** @param afterMs see undoUnlessConfirmed
 *  @throws SSHD_SETUP_FAILED when the process is not up */
export async function startUndoTimer(layout: SshdLayout, configFile: string, afterMs: number): Promise<void> {
  rmSync(upFile(layout), { force: true })
  const command = [
    ...[process.execPath, process.argv[1]!],
    ...['sshd', 'setup', '--undo', '--unless-confirmed-within', `${afterMs}ms`, '--sshd-config', configFile],
  ]
  const systemdRun = findSystemdRun()
  if (systemdRun === undefined) startDetached(command)
  else await startUnit(systemdRun, command)
  const deadline = performance.now() + START_TIMEOUT_MS
  while (!existsSync(upFile(layout))) {
    if (performance.now() > deadline) throw failed('it does not start')
    await wait(20)
  }
}

/** Said by that process. */
export function tellTimerIsUp(layout: SshdLayout): void {
  if (existsSync(layout.folder)) writeFileSync(upFile(layout), `${process.pid}\n`, { mode: 0o600 })
}

/** In a session of its own: no hang-up of the terminal reaches it. */
function startDetached([file, ...args]: string[]): void {
  const child = spawn(file!, args, { detached: true, stdio: 'ignore', cwd: '/' })
  child.on('error', () => {}) // it is missed soon enough
  child.unref()
}

/** A unit of the system: logind may end everything that a session has started when it closes. */
async function startUnit(systemdRun: string, command: readonly string[]): Promise<void> {
  const unit = `postern-sshd-undo-${process.pid}`
  const { code, stderr } = await runProgram(systemdRun, [
    ...['--quiet', '--collect', `--unit=${unit}`, '--description=takes back postern sshd setup', '--'],
    ...command,
  ])
  if (code !== 0) throw failed(lastLines(stderr))
}

function findSystemdRun(): string | undefined {
  return existsSync('/run/systemd/system') && userInfo().uid === 0 ? findProgram('systemd-run') : undefined
}

function upFile(layout: SshdLayout): string {
  return path.join(layout.folder, 'undo-timer')
}

function failed(why: string): PosternError {
  return new PosternError(
    'SSHD_SETUP_FAILED',
    `nothing was changed: the process that would take it back is not there (${why})`,
  )
}
