import { parseEmailAddress, parseEmailDomain } from '@postern/shared/email'
import { type ErrorCode, PosternError } from '@postern/shared/errors'
import type { AllowList } from '@postern/shared/identity'

/** Reads a list as it came over the wire: every entry in its one form, no entry twice, sorted. One bad entry
 *  refuses the whole list, and all bad ones are named: nothing is dropped.
 *  @throws DOMAIN_INVALID · ADDRESS_INVALID · ALLOW_LIST_EMPTY */
export function readAllowList(input: AllowList): AllowList {
  const list: AllowList = {
    emailDomains: readAll(input.emailDomains, parseEmailDomain, 'DOMAIN_INVALID', 'email domains'),
    emailAddresses: readAll(input.emailAddresses, parseEmailAddress, 'ADDRESS_INVALID', 'email addresses'),
    anyAuthenticated: input.anyAuthenticated,
  }
  if (list.emailDomains.length === 0 && list.emailAddresses.length === 0 && !list.anyAuthenticated) {
    throw new PosternError('ALLOW_LIST_EMPTY', 'the allow-list admits nobody')
  }
  return list
}

function readAll(
  texts: readonly string[],
  parse: (text: string) => string,
  code: ErrorCode,
  what: string,
): string[] {
  const entries = new Set<string>()
  const bad: string[] = []
  for (const text of texts) {
    try {
      entries.add(parse(text))
    } catch {
      bad.push(text)
    }
  }
  if (bad.length > 0) {
    const named = bad.slice(0, 10).map((text) => JSON.stringify(text))
    throw new PosternError(code, `these are not ${what}: ${named.join(', ')}${bad.length > 10 ? ', …' : ''}`)
  }
  return [...entries].sort()
}
