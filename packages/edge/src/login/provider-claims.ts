import { PosternError } from '@postern/shared/errors'

/** Claims that decide something later, read within limits. What cannot be taken whole refuses the login: a group
 *  that was dropped here would open what a rule denies to it. */

const MAX_GROUPS = 200
const MAX_METHODS = 20
const MAX_CHARS = 128
/** Also line separators and halves of characters: nothing that a terminal, a log or PostgreSQL chokes on. */
const UNPRINTABLE = /[\p{Cc}\p{Cs}\p{Zl}\p{Zp}]/u

type Claims = Readonly<Record<string, unknown>>

/** The groups of a person: a list of texts, or one text. None when the provider says nothing of groups.
 *  @throws LOGIN_REFUSED malformed, more than 200, longer than 128 characters, or kept elsewhere: some providers
 *  name a place to ask instead of the groups when there are many */
export function readGroups(claims: Claims, claim: string): string[] {
  const elsewhere = claims._claim_names
  if (claims[claim] === undefined && isRecord(elsewhere) && elsewhere[claim] !== undefined) {
    throw refusedClaim(claim, 'the identity provider does not list all groups of the account')
  }
  return readTexts(claims[claim], claim, MAX_GROUPS)
}

/** `amr` of the ID token (OpenID Connect Core §2). @throws LOGIN_REFUSED */
export function readMethods(claims: Claims): string[] {
  return readTexts(claims.amr, 'amr', MAX_METHODS)
}

/** `acr` of the ID token. @throws LOGIN_REFUSED */
export function readLevel(claims: Claims): string | undefined {
  return claims.acr === undefined || claims.acr === null ? undefined : readText(claims.acr, 'acr')
}

/** `auth_time` of the ID token, in whole epoch seconds. @throws LOGIN_REFUSED */
export function readAuthTime({ auth_time: authTime }: Claims): number | undefined {
  if (authTime === undefined || authTime === null) return undefined
  if (typeof authTime === 'number' && authTime >= 0 && authTime < Number.MAX_SAFE_INTEGER / 1_000) {
    return Math.floor(authTime)
  }
  throw refusedClaim('auth_time', 'it is not a time')
}

function readTexts(value: unknown, claim: string, max: number): string[] {
  if (value === undefined || value === null) return []
  const texts = Array.isArray(value) ? value : [value]
  if (texts.length > max) throw refusedClaim(claim, `it has ${texts.length} entries, more than ${max}`)
  return [...new Set(texts.map((text) => readText(text, claim)))]
}

function readText(value: unknown, claim: string): string {
  if (typeof value !== 'string' || value === '') throw refusedClaim(claim, 'it is not text')
  if (value.length > MAX_CHARS) throw refusedClaim(claim, `an entry is longer than ${MAX_CHARS} characters`)
  if (UNPRINTABLE.test(value)) throw refusedClaim(claim, 'an entry has control characters')
  return value
}

function isRecord(value: unknown): value is Claims {
  return typeof value === 'object' && value !== null
}

function refusedClaim(claim: string, why: string): PosternError {
  return new PosternError('LOGIN_REFUSED', `the claim ${claim} of the account cannot be used: ${why}`, {
    hint: `let the provider send fewer or other entries in ${claim}, or name another claim in the edge's configuration`,
  })
}
