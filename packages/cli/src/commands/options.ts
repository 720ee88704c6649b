import { parseDuration } from '@postern/shared/duration'
import { parseEmailAddress, parseEmailDomain } from '@postern/shared/email'
import { PosternError } from '@postern/shared/errors'
import type { AllowList } from '@postern/shared/identity'
import type { Command } from 'commander'

/** Option values, read before anything is asked of the edge. Every parser throws a PosternError with exit code 2. */

/** `https://HOST[:PORT]`, as an origin. */
export function parseEdgeOrigin(text: string): string {
  const url = URL.parse(text)
  const bare = url && url.pathname === '/' && !url.search && !url.hash && !url.username && !url.password
  if (!bare || url.protocol !== 'https:') {
    throw new PosternError('USAGE_INVALID', `${JSON.stringify(text)} is not the address of an edge`, {
      hint: 'write it as https://edge.example.com or https://edge.example.com:8443',
    })
  }
  return url.origin
}

export function parsePort(text: string): number {
  const port = Number(text)
  if (!/^\d{1,5}$/.test(text) || port < 1 || port > 65_535) {
    throw new PosternError('USAGE_INVALID', `${JSON.stringify(text)} is not a port`, {
      hint: 'a port is a number from 1 to 65535',
    })
  }
  return port
}

const SHORTEST_CHECK_MS = 1_000
const LONGEST_CHECK_MS = 3_600_000

/** How often to look whether a service is there. @returns milliseconds, 0 for `off` */
export function parseHealthCheck(text: string): number {
  if (text === 'off') return 0
  const ms = parseDuration(text)
  if (ms >= SHORTEST_CHECK_MS && ms <= LONGEST_CHECK_MS) return ms
  throw new PosternError('USAGE_INVALID', `a health check every ${text} is too often or too seldom`, {
    hint: 'name a time from 1s to 1h, or off',
  })
}

export function parseCount(text: string): number {
  if (!/^\d{1,9}$/.test(text)) {
    throw new PosternError('USAGE_INVALID', `${JSON.stringify(text)} is not a number`)
  }
  return Number(text)
}

/** Comma-separated, and the option may be given again. */
export function collectList(text: string, before: string[] = []): string[] {
  return [
    ...before,
    ...text
      .split(',')
      .map((entry) => entry.trim())
      .filter(Boolean),
  ]
}

export interface AllowOptions {
  allowedEmailDomains?: string[]
  allowedEmailAddresses?: string[]
  /** The spellings of an older tool. */
  allowed_email_domains?: string[]
  allowed_email_addresses?: string[]
  allowAnyAuthenticated?: boolean
}

/** Every entry is read, and every bad one named, before anything is created.
 *  @returns undefined when no option says who may enter
 *  @throws DOMAIN_INVALID · ADDRESS_INVALID */
export function parseAllowList(options: AllowOptions): AllowList | undefined {
  const domains = [options.allowedEmailDomains, options.allowed_email_domains].filter(Boolean)
  const addresses = [options.allowedEmailAddresses, options.allowed_email_addresses].filter(Boolean)
  if (domains.length + addresses.length === 0 && !options.allowAnyAuthenticated) return undefined
  const bad: PosternError[] = []
  const list = {
    emailDomains: parseEntries(domains.flat() as string[], parseEmailDomain, bad),
    emailAddresses: parseEntries(addresses.flat() as string[], parseEmailAddress, bad),
    anyAuthenticated: options.allowAnyAuthenticated === true,
  }
  const [first] = bad
  if (first) {
    const hints = [...new Set(bad.map((error) => error.hint))].join('; ')
    throw new PosternError(first.code, bad.map((error) => error.message).join(', '), { hint: hints })
  }
  return list
}

/** @throws ALLOW_LIST_EMPTY when the options name nobody */
export function requireSomebody(list: AllowList): AllowList {
  if (list.anyAuthenticated || list.emailDomains.length > 0 || list.emailAddresses.length > 0) return list
  throw new PosternError('ALLOW_LIST_EMPTY', 'the allow-list would admit nobody')
}

function parseEntries<T extends string>(
  entries: readonly string[],
  parse: (text: string) => T,
  bad: PosternError[],
): T[] {
  const parsed = new Set<T>()
  for (const entry of entries) {
    try {
      parsed.add(parse(entry))
    } catch (error) {
      bad.push(error as PosternError)
    }
  }
  return [...parsed]
}

export function addAllowOptions(command: Command): Command {
  const older = (flags: string) => command.createOption(flags).argParser(collectList).hideHelp()
  return command
    .option(
      '--allowed-email-domains <list>',
      'admit these domains, exactly: mycorp.com,example.org',
      collectList,
    )
    .option('--allowed-email-addresses <list>', 'admit these addresses: contractor@example.com', collectList)
    .option('--allow-any-authenticated', 'admit everybody who can sign in at the edge')
    .addOption(older('--allowed_email_domains <list>'))
    .addOption(older('--allowed_email_addresses <list>'))
}
