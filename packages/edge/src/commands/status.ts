import { PosternError } from '@postern/shared/errors'
import type { Command } from 'commander'
import { loadConfig } from '../config/load.ts'
import type { ProgramParts } from '../program.ts'
import { type CertificateStatus, type EdgeStatus, isProcess, type KeysStatus, readStatus } from '../status.ts'
import { configOption } from './options.ts'

const DAY_MS = 86_400_000

export function addStatus(program: Command, parts: ProgramParts): void {
  program
    .command('status')
    .description(
      'show the running edge: where it is, its certificate, and its keys beside those of other edges',
    )
    .addOption(configOption())
    .option('--json', 'print one JSON object')
    .addHelpText(
      'after',
      `
Reads what the edge on this machine has written into its data_dir. Exit code 6 when none is running there.

Examples:
  $ postern-edge status --config /etc/postern-edge/edge.yaml
  $ postern-edge status --config edge.yaml --json | jq .certificate.daysLeft`,
    )
    .action(async (options: { config: string; json?: boolean }) => {
      const { dataDir } = loadConfig(options.config)
      const status = await readStatus(dataDir)
      if (!status || !isProcess(status.pid)) {
        throw new PosternError('EDGE_UNREACHABLE', `no edge is running with ${dataDir}`, {
          hint: `start it: postern-edge serve --config ${options.config}`,
        })
      }
      const now = Date.now()
      if (options.json) parts.stdout.write(`${JSON.stringify(withDaysLeft(status, now), null, 2)}\n`)
      else for (const [key, value] of rowsOf(status, now)) parts.stdout.write(`${key.padEnd(14)}${value}\n`)
    })
}

function withDaysLeft(status: EdgeStatus, now: number) {
  return { ...status, certificate: { ...status.certificate, daysLeft: daysLeft(status.certificate, now) } }
}

function rowsOf(
  { origin, pid, version, startedAt, certificate, keys }: EdgeStatus,
  now: number,
): [string, string][] {
  const {
    source,
    challenge,
    names,
    notAfter,
    isAwaited,
    nextAttemptAt,
    suggestedWindow,
    caOverlapUntil,
    failure,
  } = certificate
  const by = challenge === undefined ? source : `${source}, ${challenge}`
  const rows: [string, string][] = [
    ['edge', `${origin}, version ${version}, process ${pid}, since ${time(startedAt)}`],
    ['certificate', isAwaited ? `of the internal CA until the first by ${by} is there` : `by ${by}`],
    ['names', names.join(', ')],
    ['valid until', `${time(notAfter)}, ${daysLeft(certificate, now)} days left`],
  ]
  if (nextAttemptAt !== undefined)
    rows.push(['next order', nextAttemptAt > now ? time(nextAttemptAt) : 'now'])
  if (suggestedWindow) {
    const { start, end } = suggestedWindow
    rows.push(['advised', `between ${time(start)} and ${time(end)}, by the CA`])
  }
  if (caOverlapUntil !== undefined) rows.push(['old CA', `believed until ${time(caOverlapUntil)}`])
  if (failure) {
    const { at, inARow, message, code, hint } = failure
    rows.push(['failed', `${time(at)}, ${inARow} in a row: ${message} (${code})`], ['what to do', hint])
  }
  if (keys) rows.push(...describeKeys(keys))
  return rows
}

function describeKeys({ compared, differing }: KeysStatus): [string, string][] {
  if (differing.length === 0) return [['keys', `as at ${compared} other edges on this store`]]
  return differing.map(({ edge, kinds, from, isPresent }) => [
    'keys',
    isPresent
      ? `not as at ${edge} since ${time(from)}: ${kinds.join(', ')} (EDGE_KEYS_DIFFER)`
      : `not as at ${edge} from ${time(from)} on, unless ca is copied before: ${kinds.join(', ')}`,
  ])
}

/** To a tenth, down: nobody is told of a day that is not there. */
function daysLeft({ notAfter }: CertificateStatus, now: number): number {
  return Math.floor(((notAfter - now) / DAY_MS) * 10) / 10
}

function time(ms: number): string {
  return new Date(ms).toISOString().replace(/\.\d+Z$/, 'Z')
}
