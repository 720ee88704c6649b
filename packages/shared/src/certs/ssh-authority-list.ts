import * as v from 'valibot'
import { timestamp } from '../api/fields.ts'
import { sshPublicKeyLine } from '../api/ssh.ts'
import { PosternError } from '../errors.ts'
import { type SshJwsSigner, signSshJws, verifySshJws } from './ssh-jws.ts'
import { formatSshPublicKey, parseSshPublicKey } from './ssh-key.ts'

/** Which ssh CAs of one kind there are and until when, as each of them signs it: how a server that believes one of them
 *  learns of the next, and that the one before it is over. The edge's word over TLS is not enough for that. */

export const SSH_AUTHORITY_LIST_TYPE = 'postern-ssh-cas+jws'
const WHAT = 'the list of ssh CAs'
/** Two, while one takes over from the other. */
const MAX_AUTHORITIES = 8

const ListedAuthority = v.strictObject({
  /** One line of OpenSSH, without a comment. */
  ca: sshPublicKeyLine,
  /** Epoch milliseconds. Before that it is believed and does not sign. */
  signsFrom: timestamp,
  /** From then on it is nobody's CA any more; null while there is no other. */
  trustedUntil: v.nullable(timestamp),
})
export type ListedSshAuthority = v.InferOutput<typeof ListedAuthority>

const SshAuthorityList = v.strictObject({
  kind: v.picklist(['user', 'host']),
  /** The edge's. */
  domain: v.pipe(v.string(), v.minLength(1), v.maxLength(253)),
  /** Oldest first. */
  authorities: v.pipe(v.array(ListedAuthority), v.minLength(1), v.maxLength(MAX_AUTHORITIES)),
})
export type SshAuthorityList = v.InferOutput<typeof SshAuthorityList>

export function signSshAuthorityList(list: SshAuthorityList, signer: SshJwsSigner): string {
  return signSshJws(SSH_AUTHORITY_LIST_TYPE, list, signer)
}

export interface ExpectedAuthorityList {
  kind: SshAuthorityList['kind']
  domain: string
  /** Line of the CA that has to have signed it. It stands in the list itself, and is believed now. */
  by: string
  /** Epoch milliseconds. */
  now: number
}

/** @throws CERTIFICATE_REFUSED another signer, another kind or edge, an order or an end that cannot be, or malformed ·
 *  SSH_KEY_INVALID */
export function verifySshAuthorityList(
  jws: string,
  { kind, domain, by, now }: ExpectedAuthorityList,
): readonly ListedSshAuthority[] {
  const parsed = v.safeParse(SshAuthorityList, verifySshJws(jws, SSH_AUTHORITY_LIST_TYPE, { by, what: WHAT }))
  if (!parsed.success) throw refused('is malformed')
  const { authorities, ...of } = parsed.output
  if (of.kind !== kind) throw refused(`is for ${of.kind}s`)
  if (of.domain !== domain) throw refused(`is of ${JSON.stringify(of.domain)}`)
  for (const { ca } of authorities) {
    if (formatSshPublicKey(parseSshPublicKey(ca)) !== ca) throw refused('spells a key in another way')
  }
  if (new Set(authorities.map(({ ca }) => ca)).size < authorities.length) throw refused('names one twice')
  if (!isInOrder(authorities)) throw refused('is out of order')
  const signer = authorities.find(({ ca }) => ca === by)
  if (!signer || !isBelieved(signer, now)) throw refused('is signed by a CA that it does not believe')
  return authorities
}

export function isBelieved({ trustedUntil }: Pick<ListedSshAuthority, 'trustedUntil'>, now: number): boolean {
  return trustedUntil === null || now < trustedUntil
}

/** The newest has no end: whoever follows the list is never left with nobody to believe. */
function isInOrder(authorities: readonly ListedSshAuthority[]): boolean {
  const areDatesAscending = authorities.every(
    ({ signsFrom }, index) => index === 0 || authorities[index - 1]!.signsFrom <= signsFrom,
  )
  return areDatesAscending && authorities.at(-1)!.trustedUntil === null
}

function refused(reason: string): PosternError {
  return new PosternError('CERTIFICATE_REFUSED', `${WHAT} ${reason}`)
}
