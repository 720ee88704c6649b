import { PosternError } from '@postern/shared/errors'
import { explainComplaint, HELP_SHOWN } from '@postern/shared/usage-complaint'
import { readUsualKeysign, runKeysign } from './commands/client/ssh-keysign.ts'
import { readUsualTls, runClientTls } from './commands/client/tls.ts'
import { hasTerminal, tellError } from './io.ts'

/** `postern`: the command line. The only file that reads the arguments and sets the exit code.
 *  Refuses to guess: whatever it does not understand ends with exit code 2 and says why. */

const INTERRUPTED = 130
/** `code` of what `ssh` and `scp` throw when the program they started has told the person everything. */
const CHILD_EXITED = 'POSTERN_CHILD_EXITED'
const stop = new AbortController()
let endsInOrder = false
let signalsAreLeft = false
let reload: (() => void) | undefined

for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  process.on(signal, () => {
    if (signalsAreLeft) return
    if (signal === 'SIGHUP' && reload) return reload()
    if (!endsInOrder || stop.signal.aborted) process.exit(INTERRUPTED)
    stop.abort(new PosternError('INTERRUPTED', 'interrupted'))
  })
}

process.exit(await run(process.argv.slice(2)))

async function run(args: string[]): Promise<number> {
  try {
    if (!(await runUsual(args))) await runCommand(args)
    return 0
  } catch (error) {
    return explainFailure(error)
  }
}

/** The two commands that ssh starts again and again, without commander. What they need is one chunk, see build.ts.
 *  @returns whether it was one of them, with nothing unusual about it */
async function runUsual([group, command, ...args]: string[]): Promise<boolean> {
  if (group !== 'client') return false
  if (command === 'tls') {
    const usual = readUsualTls(args)
    if (usual) await runClientTls(usual)
    return usual !== undefined
  }
  if (command !== 'ssh-keysign') return false
  const usual = readUsualKeysign(args)
  if (usual) await runKeysign(usual)
  return usual !== undefined
}

async function runCommand(args: string[]): Promise<void> {
  const { runProgram } = await import('./program.ts')
  await runProgram(args, {
    takeStopSignal() {
      endsInOrder = true
      return stop.signal
    },
    onReload(again) {
      if (!hasTerminal()) reload = again
    },
    leaveSignals() {
      signalsAreLeft = true
    },
  })
}

function explainFailure(error: unknown): number {
  if (error instanceof PosternError) {
    tellError(error)
    return error.exitCode
  }
  const { code, exitCode, message } = error as { code?: string; exitCode?: number; message?: string }
  if (code === CHILD_EXITED) return exitCode ?? 1
  if (code === HELP_SHOWN) return 2
  if (code?.startsWith('commander.'))
    return exitCode === 0 ? 0 : explainFailure(explainComplaint(message ?? ''))
  if (code === 'EPIPE') return 0
  tellError(
    new PosternError('INTERNAL', message ?? String(error), {
      hint: 'this is a bug in postern: please report it',
    }),
  )
  return 1
}
