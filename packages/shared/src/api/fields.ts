import * as v from 'valibot'

/** Pieces shared by requests and responses. All times are epoch milliseconds. */

export const timestamp = v.pipe(v.number(), v.integer())

/** A name people give a service: printable, so that it cannot play tricks with a terminal. */
export const serviceName = v.pipe(
  v.string(),
  v.minLength(1),
  v.maxLength(100),
  v.regex(/^[^\p{C}\p{Zl}\p{Zp}]+$/u, 'has control characters'),
)

export const allowList = v.object({
  emailDomains: v.array(v.string()),
  emailAddresses: v.array(v.string()),
  anyAuthenticated: v.boolean(),
})

/** What a client may send; the edge reads each entry again with `parseEmailDomain` and `parseEmailAddress`. */
export const allowListInput = v.strictObject({
  emailDomains: v.pipe(v.array(v.pipe(v.string(), v.maxLength(320))), v.maxLength(10_000)),
  emailAddresses: v.pipe(v.array(v.pipe(v.string(), v.maxLength(320))), v.maxLength(10_000)),
  anyAuthenticated: v.boolean(),
})

/** PKCS#10 in PEM. The edge takes the public key only. */
export const csrPem = v.pipe(
  v.string(),
  v.maxLength(8_192),
  v.startsWith('-----BEGIN CERTIFICATE REQUEST-----'),
)
