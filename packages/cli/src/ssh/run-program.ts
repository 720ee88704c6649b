import { spawn } from 'node:child_process'
import os from 'node:os'
import { PosternError } from '@postern/shared/errors'

/** Runs ssh or scp in our place: with our terminal, and with its exit code for ours. */

/** The program has said what there is to say; see main.ts. */
export class ChildExited extends Error {
  readonly code = 'POSTERN_CHILD_EXITED'
  readonly exitCode: number

  constructor(exitCode: number) {
    super(`exit code ${exitCode}`)
    this.exitCode = exitCode
  }
}

/** @throws ChildExited unless the exit code is 0 */
export async function runProgramInPlace(program: string, args: readonly string[]): Promise<void> {
  const child = spawn(program, args, { stdio: 'inherit' })
  // the terminal's own signals reach it by themselves
  const forward = (signal: NodeJS.Signals) => void child.kill(signal)
  process.on('SIGTERM', forward)
  try {
    const exitCode = await new Promise<number>((resolve, reject) => {
      child.on('error', (cause) =>
        reject(
          new PosternError('USAGE_INVALID', `cannot start ${program}: ${cause.message}`, {
            cause,
            hint: 'install OpenSSH',
          }),
        ),
      )
      child.on('close', (code, signal) => resolve(code ?? 128 + os.constants.signals[signal!]))
    })
    if (exitCode !== 0) throw new ChildExited(exitCode)
  } finally {
    process.off('SIGTERM', forward)
  }
}
