import assert from 'node:assert/strict'
import { PosternError } from '@postern/shared/errors'
import type * as v from 'valibot'
import {
  Authorization,
  Directory,
  describeProblem,
  Order,
  RenewalInfo,
  readChain,
  readMessage,
  readProblem,
  readRetryAfter,
} from '../packages/edge/src/acme/messages.ts'
import { mutateText } from './mutate.ts'
import type { Target } from './target.ts'

/** What an ACME server answers: understood or refused with its code, and never more than it may be. */

const DIRECTORY = {
  newNonce: 'https://ca.test/nonce',
  newAccount: 'https://ca.test/account',
  newOrder: 'https://ca.test/order',
  renewalInfo: 'https://ca.test/renewal-info',
  meta: { externalAccountRequired: false, termsOfService: 'https://ca.test/terms' },
}
const ORDER = {
  status: 'pending',
  expires: '2026-11-26T00:00:00Z',
  identifiers: [{ type: 'dns', value: 'edge.test' }],
  authorizations: ['https://ca.test/authz/1'],
  finalize: 'https://ca.test/finalize/1',
  certificate: 'https://ca.test/cert/1',
}
const PROBLEM = { type: 'urn:ietf:params:acme:error:rateLimited', detail: 'too many', status: 429 }
const AUTHORIZATION = {
  identifier: { type: 'dns', value: 'edge.test' },
  status: 'invalid',
  challenges: [
    { type: 'tls-alpn-01', url: 'https://ca.test/chall/1', token: 'abc_-9', error: PROBLEM },
    { type: 'dns-account-01', url: 'https://ca.test/chall/2' },
  ],
}
const RENEWAL_INFO = {
  suggestedWindow: { start: '2026-11-26T00:00:00Z', end: '2026-11-27T00:00:00.5+01:00' },
  explanationURL: 'https://ca.test/why',
}
const SCHEMAS: readonly [v.GenericSchema, object][] = [
  [Directory, DIRECTORY],
  [Order, ORDER],
  [Authorization, AUTHORIZATION],
  [RenewalInfo, RENEWAL_INFO],
]
const WORDS = [
  'null',
  '0',
  '1e999',
  '"',
  '[',
  '{}',
  'http://',
  'file:///etc/passwd',
  '\\u001b[2J',
  '"token":"../x"',
  '9999-99-99T99:99:99Z',
  '+23:59',
]
const WEEK_MS = 7 * 86_400_000

export const ACME_TARGET: Target = {
  name: 'acme-messages',
  cases: 20_000,
  run(random) {
    const [schema, sample] = SCHEMAS[random.below(SCHEMAS.length)]!
    checkMessage(schema, mutateText(JSON.stringify(sample), random, WORDS))
    const problem = mutateText(JSON.stringify(PROBLEM), random, WORDS)
    const told = describeProblem(readProblem({ body: Buffer.from(problem) }))
    assert.ok(told.length > 0 && told.length <= 400 && !/\p{C}/u.test(told), told)
    const wait = readRetryAfter(
      mutateText('120', random, ['9'.repeat(40), '-1', 'Wed, 21 Oct 2026 07:28:00 GMT']),
      0,
    )
    assert.ok(wait === undefined || (wait >= 0 && wait <= WEEK_MS), String(wait))
    const pem = mutateText('-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n', random, [
      '-----',
    ])
    refusedOr(() => readChain({ body: Buffer.from(pem) }))
  },
}

function checkMessage(schema: v.GenericSchema, text: string): void {
  const answer = { status: 200, header: () => undefined, body: Buffer.from(text) }
  const message = refusedOr(() => readMessage(schema, answer, 'answer'))
  for (const [key, value] of entriesOf(message)) {
    if (
      /^(new|renewalInfo|explanationURL|finalize|certificate|url|authorizations)/.test(key) &&
      typeof value === 'string'
    )
      assert.equal(new URL(value).protocol, 'https:', text)
    if (key === 'start' || key === 'end') assert.ok(Number.isFinite(value), text)
    if (key === 'token') assert.match(String(value), /^[A-Za-z0-9_-]+$/)
  }
}

/** Every member at any depth; those of a list under the list's name. */
function entriesOf(value: unknown, name = ''): [string, unknown][] {
  if (typeof value !== 'object' || value === null) return [[name, value]]
  return Object.entries(value).flatMap(([key, inner]) => entriesOf(inner, Array.isArray(value) ? name : key))
}

function refusedOr<T>(read: () => T): T | undefined {
  try {
    return read()
  } catch (error) {
    assert.ok(error instanceof PosternError && error.code === 'ACME_PROTOCOL_INVALID', String(error))
    return undefined
  }
}
