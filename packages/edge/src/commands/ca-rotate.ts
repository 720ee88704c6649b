import { formatExactDuration } from '@postern/shared/duration'
import { PosternError } from '@postern/shared/errors'
import { FLOW_IDENTITY_TTL_SECONDS } from '@postern/shared/proxy-protocol/flow-identity'
import { type Command, Option } from 'commander'
import { AUTHORITY_KINDS, ROTATED_KINDS } from '../ca/authorities.ts'
import { FLOW_IDENTITY } from '../ca/flow-identity-keys.ts'
import { MAX_SERVER_TTL_MS } from '../ca/issue-server.ts'
import { endOverlap, type RotatedKind, rotateAuthorities } from '../ca/rotate.ts'
import { isSshGenerationKind, SSH_GENERATION_KINDS } from '../ca/ssh-authorities.ts'
import type { EdgeConfig } from '../config/config.ts'
import { loadConfig } from '../config/load.ts'
import type { ProgramParts } from '../program.ts'
import { requireOwner } from './on-host.ts'
import { configOption, readDuration } from './options.ts'

interface RotateOptions {
  config: string
  kind: RotatedKind[]
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
      new Option('--kind <kind...>', 'which; edge is the one that clients pin')
        .choices([...AUTHORITY_KINDS, ...SSH_GENERATION_KINDS, FLOW_IDENTITY])
        .default([...ROTATED_KINDS], 'client, connector and workload'),
    )
    .option(
      '--signs-in <duration>',
      'when the new one begins to sign (default: 0s, 1d for ssh and flow-identity; with a store on PostgreSQL say it yourself)',
      readDuration,
    )
    .option(
      '--overlap <duration>',
      'how long the old one is believed after that (default: 30d, edge 90d, and as long as what it signed lives)',
      readDuration,
    )
    .option(
      '--unsafe-short-overlap',
      'also times shorter than certificates live or servers need to learn of it: some are cut off',
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
The CA of the edge's own certificate signs its successor: who talks to the edge within the overlap follows by itself, who
was away has to sign in with the new fingerprint. One below an offline root: postern-edge ca issue-intermediate.

ssh-user: servers set up by "postern sshd setup" learn the new line within a minute, from the edge and signed by the old CA. One
that is off until the overlap is over has to be set up again. Where you wrote TrustedUserCAKeys by hand, add the new line by
hand before it signs: postern-edge ca ssh show. ssh-host: the same for lines @cert-authority that people wrote themselves.
flow-identity is no CA but the key that says to services who comes: they fetch the new one, which is shown beside the old one
from now on, before it signs.

Examples:
  $ postern-edge ca rotate --config /etc/postern-edge/edge.yaml
  $ postern-edge ca rotate --config /etc/postern-edge/edge.yaml --kind connector --signs-in 1d --overlap 7d
  $ postern-edge ca rotate --config /etc/postern-edge/edge.yaml --kind edge
  $ postern-edge ca rotate --config /etc/postern-edge/edge.yaml --kind ssh-user ssh-host`,
    )
    .action(async (options: RotateOptions) => {
      const config = loadConfig(options.config)
      const { dataDir, ca } = config
      await requireOwner(dataDir)
      const now = Date.now()
      if (options.unsafeEndOverlap) {
        const ended = await endOverlap(dataDir, options.kind, now)
        return void parts.stderr.write(`postern-edge: ${ended} CAs are not believed any more\n`)
      }
      const signsInMs = (kind: RotatedKind) => chooseStart(kind, options, config)
      const overlapMs = (kind: RotatedKind) => chooseOverlap(kind, options, config)
      const times = options.kind.map((kind) => ({ kind, start: signsInMs(kind), end: overlapMs(kind) }))
      const keys = { sshKeyType: config.ssh.caKeyType, lock: ca.keyLock, domain: config.domain }
      await rotateAuthorities(dataDir, options.kind, { now, signsInMs, overlapMs, ...keys })
      const at = (ms: number) => new Date(now + ms).toISOString()
      for (const { kind, start, end } of times) {
        parts.stderr.write(
          `postern-edge: a new ${nameOf(kind)} signs from ${at(start)} on, the old one is believed until ${at(start + end)}\n`,
        )
      }
      if (options.kind.includes('edge')) {
        parts.stderr.write(
          'postern-edge: who was not here by then signs in with its fingerprint: postern-edge ca show\n',
        )
      }
      if (
        ROTATED_KINDS.every((kind) => options.kind.includes(kind)) &&
        !options.kind.some(isSshGenerationKind)
      ) {
        parts.stderr.write(
          'postern-edge: those of ssh stay as they are; to rotate them: --kind ssh-user ssh-host\n',
        )
      }
    })
}

function nameOf(kind: RotatedKind): string {
  return kind === FLOW_IDENTITY ? 'key of flow identities' : `${kind} CA`
}

/** Somebody beside the edge has to learn of it before it signs. */
function isFollowed(kind: RotatedKind): boolean {
  return isSshGenerationKind(kind) || kind === FLOW_IDENTITY
}

const USUAL_FOLLOWED_START_MS = 86_400_000
/** Servers ask once a minute. */
const LEAST_FOLLOWED_START_MS = 5 * 60_000

/** People learn of a CA of hosts with their next certificate. */
function leastStart(kind: RotatedKind, { ssh }: EdgeConfig): number {
  if (!isFollowed(kind)) return 0
  return kind === 'ssh-host' ? Math.max(LEAST_FOLLOWED_START_MS, ssh.ttlMs) : LEAST_FOLLOWED_START_MS
}

/** Edges that share a database have files of their own; servers learn whom to believe before it signs.
 *  @throws USAGE_INVALID */
function chooseStart(
  kind: RotatedKind,
  { signsIn, unsafeShortOverlap }: RotateOptions,
  config: EdgeConfig,
): number {
  if (signsIn === undefined && kind === 'server') {
    throw new PosternError('USAGE_INVALID', 'programs verify private services with the CA that signs now', {
      hint: 'say when the new one signs, and give them postern-edge ca export --kind server before: --signs-in 30d',
    })
  }
  if (signsIn === undefined && !config.store.startsWith('sqlite:')) {
    throw new PosternError('USAGE_INVALID', 'other edges may share this store, and need the new keys first', {
      hint: 'say when the new CAs sign, and copy DATA_DIR/ca to every edge before: --signs-in 1h',
    })
  }
  if (signsIn === undefined) return isFollowed(kind) ? USUAL_FOLLOWED_START_MS : 0
  const least = leastStart(kind, config)
  if (signsIn >= least || unsafeShortOverlap) return signsIn
  const whose = kind === 'ssh-host' ? 'people' : 'servers'
  throw new PosternError('USAGE_INVALID', `${whose} learn of a new ${nameOf(kind)} before it signs`, {
    hint: `--signs-in ${formatExactDuration(least)} or more, or --unsafe-short-overlap`,
  })
}

const USUAL_OVERLAP_MS = 30 * 86_400_000
/** Who has not been here for that long must be told the new fingerprint. */
const USUAL_EDGE_OVERLAP_MS = 90 * 86_400_000

/** Whoever has a certificate of the old CA has got one of the new CA before the overlap ends.
 *  @throws USAGE_INVALID */
function chooseOverlap(
  kind: RotatedKind,
  { overlap, unsafeShortOverlap }: RotateOptions,
  config: EdgeConfig,
): number {
  const least = longestLife(kind, config)
  const usual = kind === 'edge' ? USUAL_EDGE_OVERLAP_MS : USUAL_OVERLAP_MS
  if (overlap === undefined) return Math.max(usual, least)
  if (overlap >= least || unsafeShortOverlap) return overlap
  throw new PosternError(
    'USAGE_INVALID',
    kind === 'edge'
      ? `sessions and connectors may be away for longer than the overlap: ${formatExactDuration(least)}`
      : `what the ${nameOf(kind)} has signed lives longer than the overlap: ${formatExactDuration(least)}`,
    { hint: `--overlap ${formatExactDuration(least)} or more, or --unsafe-short-overlap` },
  )
}

function longestLife(kind: RotatedKind, { certificates, ssh }: EdgeConfig): number {
  if (kind === 'ssh-user') return ssh.ttlMs
  if (kind === 'ssh-host') return ssh.hostTtlMs
  if (kind === FLOW_IDENTITY) return FLOW_IDENTITY_TTL_SECONDS * 1_000
  if (kind === 'workload') return certificates.workloadMaxTtlMs
  if (kind === 'server') return MAX_SERVER_TTL_MS
  return Math.max(certificates.connectorTtlMs, certificates.sessionMs)
}
