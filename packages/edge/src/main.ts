import { setDefaultHighWaterMark } from 'node:stream'
import { setFlagsFromString } from 'node:v8'
import { PosternError } from '@postern/shared/errors'
import { explainComplaint, HELP_SHOWN } from '@postern/shared/usage-complaint'
import { runProgram } from './program.ts'

/** `postern-edge`: the only file that touches the process: arguments, signals, streams and the exit code. */

// whatever this program creates holds keys or names people
process.umask(0o077)
// it would have Node believe any server: the people's provider, a receiver of the audit log
if (process.env.NODE_TLS_REJECT_UNAUTHORIZED !== undefined) {
  delete process.env.NODE_TLS_REJECT_UNAUTHORIZED
  process.stderr.write(
    'postern-edge: NODE_TLS_REJECT_UNAUTHORIZED is set; certificates are verified all the same\n',
  )
}
// what a stream reads ahead and queues before its writer waits: a TLS server passes no size of its own on to its
// sockets, and with Node's 64 KiB a flow carries a fifth less
setDefaultHighWaterMark(false, 256 * 1024)
// Every chunk that is relayed is a new buffer outside of V8's heap, freed by the next scavenge. With a young generation
// that grows to 16 MiB those come so rarely that V8 marks the whole heap each 64 MiB of traffic instead: measured, 2.7
// against 2.1 s of CPU for a GiB.
setFlagsFromString('--semi-space-growth-factor=1')

const stop = new AbortController()
let endsInOrder = false

for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.on(signal, () => {
    // at once when the command does not end in an orderly way, or has been told before
    if (!endsInOrder || stop.signal.aborted) process.exit(signal === 'SIGINT' ? 130 : 1)
    stop.abort()
  })
}
// a reader of the log that goes away must not take the edge with it
process.stdout.on('error', () => {})
process.stderr.on('error', () => {})

process.exit(await run(process.argv.slice(2)))

async function run(args: string[]): Promise<number> {
  try {
    return await runProgram(args, {
      stdout: process.stdout,
      stderr: process.stderr,
      cwd: process.cwd(),
      takeStopSignal() {
        endsInOrder = true
        return stop.signal
      },
    })
  } catch (error) {
    return explainFailure(error)
  }
}

function explainFailure(error: unknown): number {
  if (error instanceof PosternError) {
    tell(error)
    return error.exitCode
  }
  const { code, exitCode, message, stack } = error as Partial<Error> & { code?: string; exitCode?: number }
  if (code === HELP_SHOWN) return 2
  if (code?.startsWith('commander.'))
    return exitCode === 0 ? 0 : explainFailure(explainComplaint(message ?? ''))
  tell(
    new PosternError('INTERNAL', stack ?? String(error), {
      hint: 'this is a bug in postern-edge: please report it',
    }),
  )
  return 1
}

/** The code stands behind the first line; the problems of a configuration follow it, one a line. */
function tell({ code, message, hint }: PosternError): void {
  const [first = '', ...more] = printable(message).split('\n')
  process.stderr.write(
    `${[`postern-edge: ${first} (${code})`, ...more, `  ${printable(hint)}`].join('\n')}\n`,
  )
}

/** Names and values out of files must not steer the terminal; a message may have several lines. */
function printable(text: string): string {
  return text.replace(
    /[^\P{C}\n]|[\p{Zl}\p{Zp}]/gu,
    (character) => `\\u${character.codePointAt(0)!.toString(16).padStart(4, '0')}`,
  )
}
