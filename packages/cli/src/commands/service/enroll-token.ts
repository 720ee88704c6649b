import { closeSync, fsyncSync, openSync, rmSync, writeSync } from 'node:fs'
import type { MakeEnrollTokenResponse } from '@postern/shared/api/enroll'
import { parseDuration } from '@postern/shared/duration'
import { PosternError } from '@postern/shared/errors'
import { type Command, Option } from 'commander'
import { fingerprintOf, newestCa } from '../../credentials/edge-cas.ts'
import { callSignedIn } from '../../credentials/fresh.ts'
import type { KnownEdge } from '../../credentials/known-edge.ts'
import { print, printable, printJson, tell, tellMore } from '../../io.ts'
import { loginPolicy } from '../ask.ts'
import { addExamples } from '../examples.ts'
import { addServiceOptions, reachService, type ServiceOptions } from './reach.ts'

/** `postern service enroll-token`: the token goes to stdout or into a file, and nowhere else. */

interface EnrollTokenOptions extends ServiceOptions {
  /** Milliseconds. */
  ttl?: number
  out?: string
  cancel?: boolean
}

async function runEnrollToken(given: string, options: EnrollTokenOptions): Promise<void> {
  const { edge, name } = reachService(given, options)
  if (options.cancel) return cancel(edge, name, options)
  // before the edge makes one: a token that cannot be written down is lost
  using file = options.out === undefined ? undefined : createOwnFile(options.out)
  const body = options.ttl === undefined ? {} : { ttlMs: options.ttl }
  const made = await callSignedIn(edge, loginPolicy(options), (api, session) =>
    api.makeEnrollToken(session, name, body),
  )
  file?.write(`${made.token}\n`)
  const { token, ...facts } = made
  if (options.json) await printJson(file ? { ...facts, file: options.out } : { ...facts, token })
  else if (!file) await print(`${token}\n`)
  tellHowToUse(edge, made, options.out)
}

async function cancel(edge: KnownEdge, name: string, options: EnrollTokenOptions): Promise<void> {
  const { cancelled } = await callSignedIn(edge, loginPolicy(options), (api, session) =>
    api.cancelEnrollTokens(session, name),
  )
  if (options.json) return printJson({ cancelled })
  tell(
    `cancelled ${cancelled} enroll ${cancelled === 1 ? 'token' : 'tokens'}; servers that used theirs stay connectors`,
  )
}

function tellHowToUse(edge: KnownEdge, made: MakeEnrollTokenResponse, out: string | undefined): void {
  const until = new Date(made.expiresAt).toISOString()
  tell(`one server may become a connector of ${printable(made.host)} with this token, until ${until}`)
  const ca = edge.caPem === undefined ? '' : ` --ca-fingerprint ${fingerprintOf(newestCa(edge.caPem))}`
  const where = out === undefined ? 'it goes' : `${printable(out)} goes`
  tellMore(
    `${where} into a file of mode 600 on that server, on a way that nobody else reads; then there, once:`,
  )
  tellMore(
    `postern connect --name ${quote(made.name)} --port PORT --edge ${edge.origin}${ca} --enroll-token-file FILE`,
  )
}

/** For a POSIX shell. */
function quote(text: string): string {
  return printable(`'${text.replaceAll("'", `'\\''`)}'`)
}

interface OwnFile extends Disposable {
  write(text: string): void
}

/** A new file that only its owner may read. Removed again unless it was written.
 *  @throws USAGE_INVALID it is there already, or cannot be made */
function createOwnFile(file: string): OwnFile {
  let descriptor: number
  try {
    descriptor = openSync(file, 'wx', 0o600)
  } catch (cause) {
    const isThere = (cause as NodeJS.ErrnoException).code === 'EEXIST'
    const why = isThere ? 'it is there already' : (cause as Error).message
    throw new PosternError('USAGE_INVALID', `cannot write ${file}: ${why}`, {
      hint: 'name a new file in a folder of yours with --out',
      cause,
    })
  }
  let isWritten = false
  return {
    write(text) {
      writeSync(descriptor, text)
      fsyncSync(descriptor)
      isWritten = true
    },
    [Symbol.dispose]() {
      closeSync(descriptor)
      if (!isWritten) rmSync(file, { force: true })
    },
  }
}

export function addServiceEnrollToken(parent: Command): void {
  const command = parent
    .command('enroll-token')
    .description(
      'make a token with which one server becomes a connector of the service, without anybody signing in there',
    )
    .argument('<service>', 'its label or full host')
    .addOption(
      new Option(
        '--ttl <duration>',
        'how long it may be used; the edge has a bound (default: 24h)',
      ).argParser(parseDuration),
    )
    .option('--out <file>', 'write it into a new file of mode 600, not to stdout')
    .addOption(
      new Option('--cancel', 'make none, and cancel all that were not used yet').conflicts(['ttl', 'out']),
    )
  addServiceOptions(command).action(runEnrollToken)
  addExamples(command, [
    ['a token for a new server', 'postern service enroll-token crimson-thunder-8434 --out enroll-token'],
    [
      'for an hour, into a secret store',
      'postern service enroll-token crimson-thunder-8434 --ttl 1h | vault-put build-7',
    ],
    ['none of them any more', 'postern service enroll-token crimson-thunder-8434 --cancel'],
  ])
}
