import {
  type ExpectedAuthorityList,
  isBelieved,
  type ListedSshAuthority,
  verifySshAuthorityList,
} from '@postern/shared/certs/ssh-authority-list'
import { parseSshPublicKey, sshFingerprint } from '@postern/shared/certs/ssh-key'
import { PosternError } from '@postern/shared/errors'

/** Which ssh CAs of one kind this server believes, and how it learns of others: from a list that the CA has signed which,
 *  as far as the server knows, signs now. TLS alone makes nobody a CA here, and neither does one that is on its way out. */

export interface KnownAuthorities {
  /** Oldest first, never empty. */
  believed: readonly ListedSshAuthority[]
  /** Lines of those that are over; they never come back, whatever list is shown again. */
  dropped: readonly string[]
}

/** More than one would meet in decades. */
const MAX_DROPPED = 64

/** As somebody has named them; what they sign when is learned later. */
export function knownFrom(lines: readonly string[]): KnownAuthorities {
  return { believed: lines.map((ca) => ({ ca, signsFrom: 0, trustedUntil: null })), dropped: [] }
}

export function linesOf({ believed }: KnownAuthorities): string[] {
  return believed.map(({ ca }) => ca)
}

/** The newest whose time has come. */
export function signingOf({ believed }: KnownAuthorities, now: number): ListedSshAuthority {
  return believed.findLast(({ signsFrom }) => signsFrom <= now) ?? believed[0]!
}

/** Without those whose time is over; the newest stays, whatever is said of it. */
export function withoutEnded(known: KnownAuthorities, now: number): KnownAuthorities {
  const ended = known.believed.slice(0, -1).filter((authority) => !isBelieved(authority, now))
  return ended.length === 0 ? known : drop(known, ended)
}

/** @param lists as the edge gives them: the same one, signed by each CA in it
 *  @throws SSH_CA_UNKNOWN none of them is signed by the CA that signs, as far as is known here */
export function learnAuthorities(
  known: KnownAuthorities,
  lists: readonly string[],
  expected: Omit<ExpectedAuthorityList, 'by'>,
): KnownAuthorities {
  const { ca: by } = signingOf(known, expected.now)
  const listed = findVerified(lists, known, { ...expected, by })
  const { signsFrom: since } = listed.find(({ ca }) => ca === by)!
  const isListed = (ca: string) => listed.some((one) => one.ca === ca)
  const unlisted = known.believed.filter(({ ca, signsFrom }) => !isListed(ca) && signsFrom <= since)
  const believed = listed.filter(({ ca }) => !known.dropped.includes(ca))
  return withoutEnded(drop({ believed, dropped: known.dropped }, unlisted), expected.now)
}

function findVerified(
  lists: readonly string[],
  { dropped }: KnownAuthorities,
  expected: ExpectedAuthorityList,
): readonly ListedSshAuthority[] {
  let cause: unknown
  for (const list of lists) {
    try {
      const listed = verifySshAuthorityList(list, expected)
      if (!dropped.includes(listed.at(-1)!.ca)) return listed
    } catch (error) {
      cause ??= error
    }
  }
  const fingerprint = sshFingerprint(parseSshPublicKey(expected.by).blob)
  throw new PosternError(
    'SSH_CA_UNKNOWN',
    `the ssh CA for ${expected.kind}s that this server believes, ${fingerprint}, does not vouch for the edge's`,
    { cause },
  )
}

function drop(
  { believed, dropped }: KnownAuthorities,
  ended: readonly ListedSshAuthority[],
): KnownAuthorities {
  const lines = ended.map(({ ca }) => ca)
  return {
    believed: believed.filter(({ ca }) => !lines.includes(ca)),
    dropped: [...new Set([...dropped, ...lines])].slice(-MAX_DROPPED),
  }
}
