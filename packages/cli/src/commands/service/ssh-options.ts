import type { SshSettingsChange } from '@postern/shared/api/ssh'
import { parseDuration } from '@postern/shared/duration'
import { PosternError } from '@postern/shared/errors'
import type { Command } from 'commander'
import { collectList } from '../options.ts'

/** How a service's ssh certificates look, as options of `service update`. What is left out stays; an empty value
 *  takes back. The edge reads every name again. */
export interface SshOptions {
  sshPrincipals?: string[]
  sshSharedPrincipal?: boolean
  sshLocalPartDomain?: string
  sshGroupPrefix?: string
  sshPermit?: string[]
  sshForceCommand?: string
  sshSourceAddresses?: string[]
  sshTtl?: string
}

const PERMITS = {
  'port-forwarding': 'portForwarding',
  'agent-forwarding': 'agentForwarding',
  'x11-forwarding': 'x11Forwarding',
  'user-rc': 'userRc',
} as const

export function addSshOptions(command: Command): Command {
  return command
    .option(
      '--ssh-principals <list>',
      'more names in ssh certificates: LABEL/dba (others need an admin)',
      collectList,
    )
    .option('--ssh-shared-principal <on|off>', 'whether they name postern_ssh_signed', readSwitch)
    .option(
      '--ssh-local-part-domain <domain>',
      'people of this domain are named by their local part too (needs an admin)',
    )
    .option('--ssh-group-prefix <prefix>', 'people’s groups are named behind this: group:')
    .option(
      '--ssh-permit <list>',
      `what they permit beside a terminal: ${Object.keys(PERMITS).join(',')}`,
      collectList,
    )
    .option('--ssh-force-command <command>', 'the only command that sshd runs')
    .option(
      '--ssh-source-addresses <list>',
      'from where sshd takes them: the connector’s address',
      collectList,
    )
    .option('--ssh-ttl <duration>', 'how long they are valid, not longer than the edge allows')
}

/** @returns undefined when no option was given
 *  @throws USAGE_INVALID · DURATION_INVALID */
export function parseSshOptions(options: SshOptions): SshSettingsChange | undefined {
  const change: SshSettingsChange = {}
  if (options.sshPrincipals) change.principals = options.sshPrincipals
  if (options.sshSharedPrincipal !== undefined) change.sharedPrincipal = options.sshSharedPrincipal
  if (options.sshLocalPartDomain !== undefined) change.localPartDomain = options.sshLocalPartDomain || null
  if (options.sshGroupPrefix !== undefined) change.groupPrefix = options.sshGroupPrefix || null
  if (options.sshPermit) change.permit = parsePermits(options.sshPermit)
  if (options.sshForceCommand !== undefined) change.forceCommand = options.sshForceCommand || null
  const addresses = options.sshSourceAddresses
  if (addresses) change.sourceAddresses = addresses.length > 0 ? addresses : null
  if (options.sshTtl !== undefined) change.ttlMs = options.sshTtl ? parseDuration(options.sshTtl) : null
  return Object.keys(change).length > 0 ? change : undefined
}

/** Exactly these: what is not named is not permitted any more. */
function parsePermits(names: readonly string[]): NonNullable<SshSettingsChange['permit']> {
  const unknown = names.filter((name) => !Object.hasOwn(PERMITS, name))
  if (unknown.length > 0) {
    throw new PosternError('USAGE_INVALID', `${JSON.stringify(unknown[0])} is nothing that is permitted`, {
      hint: `name some of ${Object.keys(PERMITS).join(', ')}, or nothing: --ssh-permit ''`,
    })
  }
  return Object.fromEntries(Object.entries(PERMITS).map(([name, member]) => [member, names.includes(name)]))
}

function readSwitch(text: string): boolean {
  if (text === 'on' || text === 'off') return text === 'on'
  throw new PosternError('USAGE_INVALID', `${JSON.stringify(text)} is neither on nor off`)
}
