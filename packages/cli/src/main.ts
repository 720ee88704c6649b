import { PosternError } from '@postern/shared/errors'
import { readUsualArguments, runClientTls } from './commands/client/tls.ts'
import { tellError } from './io.ts'

/** `postern`: the command line. The only file that reads the arguments and sets the exit code.
 *  Refuses to guess: whatever it does not understand ends with exit code 2 and says why. */

const INTERRUPTED = 130
const stop = new AbortController()
let endsInOrder = false

for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  process.on(signal, () => {
    if (!endsInOrder || stop.signal.aborted) process.exit(INTERRUPTED)
    stop.abort(new PosternError('INTERRUPTED', 'interrupted'))
  })
}

process.exit(await run(process.argv.slice(2)))

async function run(args: string[]): Promise<number> {
  try {
    const usual = args[0] === 'client' && args[1] === 'tls' ? readUsualArguments(args.slice(2)) : undefined
    if (usual) await runClientTls(usual)
    else await runCommand(args)
    return 0
  } catch (error) {
    return explainFailure(error)
  }
}

async function runCommand(args: string[]): Promise<void> {
  const { runProgram } = await import('./program.ts')
  await runProgram(args, {
    takeStopSignal() {
      endsInOrder = true
      return stop.signal
    },
  })
}

function explainFailure(error: unknown): number {
  if (error instanceof PosternError) {
    tellError(error)
    return error.exitCode
  }
  const { code, exitCode, message } = error as { code?: string; exitCode?: number; message?: string }
  // commander has printed its help or its complaint
  if (code?.startsWith('commander.')) return exitCode === 0 ? 0 : 2
  if (code === 'EPIPE') return 0
  tellError(
    new PosternError('INTERNAL', message ?? String(error), {
      hint: 'this is a bug in postern: please report it',
    }),
  )
  return 1
}
