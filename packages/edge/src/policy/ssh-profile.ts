import { isIP } from 'node:net'
import type { SshSettings, SshSettingsChange } from '@postern/shared/api/ssh'
import {
  isDeniedUser,
  parseSshHostPrincipal,
  parseSshPrincipal,
  type SshPrincipal,
} from '@postern/shared/certs/ssh-principals'
import { domainOf, parseEmailAddress, parseEmailDomain } from '@postern/shared/email'
import { PosternError } from '@postern/shared/errors'
import type { Identity } from '@postern/shared/identity'

/** What a person's certificate for one service names and permits. Pure. One CA signs for every service, and a server
 *  may look at nothing but a name: so no owner of a service can make up a name that means something elsewhere. */

/** The name that the servers of the original idea look for. Whoever admits it admits everybody whom any service of
 *  this edge admits: it can be switched off. */
export const SHARED_PRINCIPAL = 'postern_ssh_signed'

const MAX_GROUPS = 128

export interface SshGrant {
  keyId: string
  principals: SshPrincipal[]
  extensions: string[]
  criticalOptions: Record<string, string>
}

/** @param allowShared the edge's own switch
 *  @throws PRINCIPAL_INVALID an address that cannot stand in a certificate */
export function composeSshGrant(
  identity: Pick<Identity, 'email'> & { groups?: readonly string[] },
  service: { host: string; ssh: SshSettings },
  { allowShared }: { allowShared: boolean },
): SshGrant {
  const { ssh } = service
  const email = parseEmailAddress(identity.email)
  const principals = [
    parseSshPrincipal(email),
    parseSshHostPrincipal(service.host),
    ...(allowShared && ssh.sharedPrincipal ? [parseSshPrincipal(SHARED_PRINCIPAL)] : []),
    ...ssh.principals.map(parseSshPrincipal),
    ...localPartOf(email, ssh.localPartDomain),
    ...groupsOf(identity.groups ?? [], ssh.groupPrefix),
  ]
  return {
    keyId: email,
    principals: [...new Set(principals)],
    extensions: extensionsOf(ssh),
    criticalOptions: {
      ...(ssh.forceCommand === undefined ? {} : { 'force-command': ssh.forceCommand }),
      ...(ssh.sourceAddresses === undefined ? {} : { 'source-address': ssh.sourceAddresses.join(',') }),
    },
  }
}

/** `dev` of `dev@mycorp.com`, where the service says that mycorp.com's people have accounts of that name. */
function localPartOf(email: string, domain: string | undefined): SshPrincipal[] {
  const local = email.slice(0, email.indexOf('@'))
  if (domain === undefined || domainOf(parseEmailAddress(email)) !== domain) return []
  if (!/^[a-z][a-z0-9._-]{0,31}$/.test(local) || isDeniedUser(local)) return []
  return [parseSshPrincipal(local)]
}

/** A group that cannot be a name is left out: who relies on it is not let in. */
function groupsOf(groups: readonly string[], prefix: string | undefined): SshPrincipal[] {
  if (prefix === undefined) return []
  const named = groups.flatMap((group) => {
    try {
      return [parseSshPrincipal(`${prefix}${group}`)]
    } catch {
      return []
    }
  })
  return named.sort().slice(0, MAX_GROUPS)
}

function extensionsOf({ permit }: SshSettings): string[] {
  return [
    'permit-pty',
    ...(permit.portForwarding ? ['permit-port-forwarding'] : []),
    ...(permit.agentForwarding ? ['permit-agent-forwarding'] : []),
    ...(permit.x11Forwarding ? ['permit-X11-forwarding'] : []),
    ...(permit.userRc ? ['permit-user-rc'] : []),
  ]
}

/** The settings after a change, all of it read again.
 *  @param who of the service's label and the edge's domain; an admin may name what other servers may know too
 *  @throws PRINCIPAL_INVALID · ADMIN_REQUIRED · DOMAIN_INVALID · REQUEST_INVALID */
export function changeSshSettings(
  before: SshSettings,
  change: SshSettingsChange,
  who: { label: string; domain: string; isAdmin: boolean },
): SshSettings {
  const { principals, sharedPrincipal, permit, localPartDomain, groupPrefix } = change
  for (const principal of principals ?? []) {
    if (!before.principals.includes(principal)) checkExtraPrincipal(principal, who)
  }
  if (localPartDomain && localPartDomain !== before.localPartDomain) requireAdmin('local parts', who)
  const after: SshSettings = {
    ...before,
    ...(principals ? { principals: [...new Set(principals)] } : {}),
    ...(sharedPrincipal === undefined ? {} : { sharedPrincipal }),
    permit: { ...before.permit, ...withoutUndefined(permit ?? {}) },
  }
  replace(after, 'localPartDomain', localPartDomain, parseEmailDomain)
  replace(after, 'groupPrefix', groupPrefix, readGroupPrefix)
  replace(after, 'forceCommand', change.forceCommand, readForceCommand)
  replace(after, 'sourceAddresses', change.sourceAddresses, (list) => list.map(readSourceAddress))
  replace(after, 'ttlMs', change.ttlMs, (ms) => ms)
  return after
}

function replace<K extends keyof SshSettings, T>(
  settings: SshSettings,
  key: K,
  value: T | null | undefined,
  read: (value: T) => NonNullable<SshSettings[K]>,
): void {
  if (value === null) delete settings[key]
  else if (value !== undefined) settings[key] = read(value)
}

/** `<label>/name` is the owner's to give. Other names may be somebody's account on another server. */
function checkExtraPrincipal(text: string, who: { label: string; domain: string; isAdmin: boolean }): void {
  const principal = parseSshPrincipal(text)
  const refuse = (reason: string): never => {
    throw new PosternError('PRINCIPAL_INVALID', `the principal ${JSON.stringify(text)} ${reason}`)
  }
  if (principal.includes('@')) refuse('looks like an address: only its own holder has that in a certificate')
  if (principal.includes(':')) refuse('looks like a group: those come from the company’s provider')
  const lower = principal.toLowerCase()
  if (lower === who.domain || lower.endsWith(`.${who.domain}`)) refuse('is the host of a service')
  if (principal.includes('/') && !principal.startsWith(`${who.label}/`)) {
    refuse('belongs to another service')
  }
  if (!principal.includes('/')) requireAdmin(`the principal ${principal}`, who)
}

function requireAdmin(what: string, { isAdmin, label }: { isAdmin: boolean; label: string }): void {
  if (isAdmin) return
  throw new PosternError('ADMIN_REQUIRED', `${what} may mean an account on any server of this edge`, {
    hint: `ask an administrator of the edge, or use a name of this service only: ${label}/NAME`,
  })
}

/** Ends in a colon, which no account, address or host has: `group:`. */
function readGroupPrefix(prefix: string): string {
  if (!/^[A-Za-z0-9._-]{1,31}:$/.test(prefix)) {
    throw new PosternError(
      'PRINCIPAL_INVALID',
      `the prefix ${JSON.stringify(prefix)} does not end in a colon`,
      {
        hint: 'write it as in group:',
      },
    )
  }
  return prefix
}

function readForceCommand(command: string): string {
  if (/[\p{C}\p{Zl}\p{Zp}]/u.test(command)) {
    throw new PosternError('REQUEST_INVALID', 'the forced command has control characters')
  }
  return command
}

/** An address or a network whose host part is zero: of anything else sshd says that the whole list is wrong. */
function readSourceAddress(text: string): string {
  const [address = '', bits, ...rest] = text.split('/')
  const version = isIP(address)
  const width = version === 4 ? 32 : 128
  const length = bits === undefined ? width : /^\d{1,3}$/.test(bits) ? Number(bits) : -1
  const isGood =
    version !== 0 && rest.length === 0 && length >= 0 && length <= width && isNetwork(address, length)
  if (isGood && !address.includes('%')) return text
  throw new PosternError('REQUEST_INVALID', `${JSON.stringify(text)} is not an address or network`, {
    hint: 'write it as in 10.0.0.7 or 10.0.0.0/8',
  })
}

function isNetwork(address: string, length: number): boolean {
  const binary = isIP(address) === 4 ? bitsOfV4(address) : bitsOfV6(address)
  return !binary.slice(length).includes('1')
}

function bitsOfV4(address: string): string {
  return address
    .split('.')
    .map((part) => Number(part).toString(2).padStart(8, '0'))
    .join('')
}

function bitsOfV6(address: string): string {
  // the URL parser writes the last 32 bits in hexadecimal too
  const [head = '', tail] = new URL(`http://[${address}]`).hostname.slice(1, -1).split('::')
  const groups = (text: string | undefined) => (text ? text.split(':') : [])
  const [left, right] = [groups(head), groups(tail)]
  const zeros = Array.from({ length: 8 - left.length - right.length }, () => '0')
  return [...left, ...zeros, ...right]
    .map((group) => Number.parseInt(group, 16).toString(2).padStart(16, '0'))
    .join('')
}

function withoutUndefined<T extends object>(value: T): { [K in keyof T]?: NonNullable<T[K]> } {
  return Object.fromEntries(Object.entries(value).filter(([, member]) => member !== undefined)) as {
    [K in keyof T]?: NonNullable<T[K]>
  }
}
