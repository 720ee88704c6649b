import { formatExactDuration } from '@postern/shared/duration'
import { PosternError } from '@postern/shared/errors'
import { type Command, Option } from 'commander'
import { type AuthorityKind, ROTATED_KINDS } from '../ca/authorities.ts'
import { endOverlap, rotateAuthorities } from '../ca/rotate.ts'
import type { EdgeConfig } from '../config/config.ts'
import { loadConfig } from '../config/load.ts'
import type { ProgramParts } from '../program.ts'
import { configOption, readDuration } from './options.ts'

interface RotateOptions {
  config: string
  kind: AuthorityKind[]
  signsIn?: number
  overlap?: number
  unsafeShortOverlap?: boolean
  unsafeEndOverlap?: boolean
}

export function addCaRotate(group: Command, parts: ProgramParts): void {
  group
    .command('rotate')
    .description('make new CAs that take over without an outage: for a time old and new are believed')
    .addOption(configOption())
    .addOption(
      new Option('--kind <kind...>', 'which').choices(ROTATED_KINDS).default([...ROTATED_KINDS], 'all'),
    )
    .option(
      '--signs-in <duration>',
      'when the new one begins to sign (default: 0s; with a store on PostgreSQL say it yourself)',
      readDuration,
    )
    .option(
      '--overlap <duration>',
      'how long the old one is believed after that (default: 30d, and as long as what it signed lives)',
      readDuration,
    )
    .option(
      '--unsafe-short-overlap',
      'also shorter than certificates live: whoever has one of the old CA is cut off',
    )
    .addOption(
      new Option(
        '--unsafe-end-overlap',
        'make nothing new: stop believing the old ones now (a key was stolen)',
      ).conflicts(['signsIn', 'overlap']),
    )
    .addHelpText(
      'after',
      `
A running edge reads it within a second. Several edges: copy DATA_DIR/ca to each of them before the new CA signs. What the
overlap has ended is deleted with the next rotation. See what is when with: postern-edge ca show.

Examples:
  $ postern-edge ca rotate --config /etc/postern-edge/edge.yaml
  $ postern-edge ca rotate --config /etc/postern-edge/edge.yaml --kind connector --signs-in 1d --overlap 7d`,
    )
    .action(async (options: RotateOptions) => {
      const config = loadConfig(options.config)
      const { dataDir, ca } = config
      const now = Date.now()
      if (options.unsafeEndOverlap) {
        const ended = await endOverlap(dataDir, options.kind, now)
        return void parts.stderr.write(`postern-edge: ${ended} CAs are not believed any more\n`)
      }
      const signsInMs = options.signsIn ?? signsAtOnce(config)
      const overlapMs = (kind: AuthorityKind) => chooseOverlap(kind, options, config)
      for (const kind of options.kind) overlapMs(kind)
      await rotateAuthorities(dataDir, options.kind, { now, signsInMs, overlapMs, lock: ca.keyLock })
      const at = (ms: number) => new Date(now + ms).toISOString()
      for (const kind of options.kind) {
        parts.stderr.write(
          `postern-edge: a new ${kind} CA signs from ${at(signsInMs)} on, the old one is believed until ${at(signsInMs + overlapMs(kind))}\n`,
        )
      }
    })
}

/** Edges that share a database have files of their own. */
function signsAtOnce({ store }: EdgeConfig): number {
  if (store.startsWith('sqlite:')) return 0
  throw new PosternError('USAGE_INVALID', 'other edges may share this store, and need the new keys first', {
    hint: 'say when the new CAs sign, and copy DATA_DIR/ca to every edge before: --signs-in 1h',
  })
}

const USUAL_OVERLAP_MS = 30 * 86_400_000

/** Whoever has a certificate of the old CA has got one of the new CA before the overlap ends.
 *  @throws USAGE_INVALID */
function chooseOverlap(
  kind: AuthorityKind,
  { overlap, unsafeShortOverlap }: RotateOptions,
  { certificates }: EdgeConfig,
): number {
  const least =
    kind === 'workload'
      ? certificates.workloadMaxTtlMs
      : Math.max(certificates.connectorTtlMs, certificates.sessionMs)
  if (overlap === undefined) return Math.max(USUAL_OVERLAP_MS, least)
  if (overlap >= least || unsafeShortOverlap) return overlap
  throw new PosternError(
    'USAGE_INVALID',
    `what the ${kind} CA has signed lives longer than the overlap: ${formatExactDuration(least)}`,
    { hint: `--overlap ${formatExactDuration(least)} or more, or --unsafe-short-overlap` },
  )
}
