import assert from 'node:assert/strict'
import { formatDuration, parseDuration } from '@postern/shared/duration'
import { domainOf, parseEmailAddress, parseEmailDomain } from '@postern/shared/email'
import { PosternError } from '@postern/shared/errors'
import { AttachMessage, EdgeMessage } from '@postern/shared/protocol/connector-control'
import { labelOfHost, parseServiceLabel } from '@postern/shared/service-label'
import * as v from 'valibot'
import { describeConfig } from '../packages/edge/src/commands/config-check.ts'
import { parseConfig } from '../packages/edge/src/config/parse.ts'
import { EXAMPLES, listKeys } from '../packages/edge/src/config/schema.ts'
import { isLoopback, readDomain, readIssuer, readListen } from '../packages/edge/src/config/values.ts'
import { readAllowList } from '../packages/edge/src/services/read-allow-list.ts'
import { mutateText } from './mutate.ts'
import type { Target } from './target.ts'

/** @returns what was read, undefined when it was refused with one of these codes */
function readOrRefuse<T>(read: () => T, ...codes: string[]): T | undefined {
  try {
    return read()
  } catch (error) {
    assert.ok(error instanceof PosternError, String(error))
    assert.ok(codes.includes(error.code), String(error))
    return undefined
  }
}

const MESSAGES = [
  [AttachMessage, { type: 'attach', version: 1, software: '0.1.0', features: ['a'], requires: [] }],
  [
    EdgeMessage,
    {
      type: 'attached',
      version: 1,
      attachmentId: 'a1',
      service: {
        id: 'svc_1',
        label: 'db-1',
        name: 'db',
        host: 'db-1.edge.test',
        allow: { emailDomains: ['a.b'], emailAddresses: [], anyAuthenticated: false },
      },
      warm: 1,
    },
  ],
  [EdgeMessage, { type: 'want', count: 3 }],
  [EdgeMessage, { type: 'refused', code: 'CONNECTOR_REFUSED', message: 'no', hint: 'again' }],
  [EdgeMessage, { type: 'draining' }],
] as const
const MESSAGE_TEXTS = MESSAGES.map(([, message]) => JSON.stringify(message))
const JSON_WORDS = [
  'null',
  'true',
  '0',
  '-1',
  '1e999',
  '1.5',
  '""',
  '[',
  '{}',
  ',',
  '"type":',
  '"__proto__":{',
  '\\u0000',
]

const messages: Target = {
  name: 'control-messages',
  cases: 1_000_000,
  run(random) {
    const which = random.below(MESSAGES.length)
    let message: unknown
    try {
      message = JSON.parse(mutateText(MESSAGE_TEXTS[which]!, random, JSON_WORDS))
    } catch (error) {
      assert.ok(error instanceof SyntaxError)
      return
    }
    const schema = MESSAGES[which]![0]
    const result = v.safeParse(schema as v.GenericSchema, message)
    if (!result.success) return
    const again = v.parse(schema as v.GenericSchema, JSON.parse(JSON.stringify(result.output)))
    assert.equal(JSON.stringify(again), JSON.stringify(result.output))
    const { count, warm } = result.output as { count?: number; warm?: number }
    assert.ok((count ?? 1) >= 1 && (count ?? 1) <= 1_024 && (warm ?? 0) >= 0 && (warm ?? 0) <= 64)
  },
}

const ADDRESSES = [
  'ann@mycorp.com',
  "o'Neil+tag@Eu.MyCorp.com",
  'a.b-c_d@xn--bcher-kva.example',
  'evil@a.b@c.d',
]
const address: Target = {
  name: 'address',
  cases: 200_000,
  run(random) {
    const text = mutateText(random.of(ADDRESSES), random)
    const read = readOrRefuse(() => parseEmailAddress(text), 'ADDRESS_INVALID')
    if (read === undefined) return
    assert.match(read, /^[!-~]+$/)
    assert.equal(read.split('@').length, 2)
    assert.equal(parseEmailAddress(read), read)
    assert.equal(parseEmailDomain(domainOf(read)), domainOf(read))
    assert.equal(read.length, text.length)
  },
}

const DOMAINS = ['mycorp.com', 'EU.MyCorp.com', 'xn--bcher-kva.example', 'a-b.c-d.ef', '10.0.0.1']
const domain: Target = {
  name: 'domain',
  cases: 200_000,
  run(random) {
    const text = mutateText(random.of(DOMAINS), random)
    const read = readOrRefuse(() => parseEmailDomain(text), 'DOMAIN_INVALID')
    if (read !== undefined) {
      assert.match(read, /^[a-z0-9.-]{3,253}$/)
      assert.equal(parseEmailDomain(read), read)
      assert.ok(!read.startsWith('.') && !read.endsWith('.') && !read.includes('..'))
    }
    const own = attempt(() => readDomain(text))
    if (own !== undefined) assert.equal(readDomain(own), own)
  },
}

const LABELS = ['crimson-thunder-8434', 'db1', 'mtls', 'xn--caf-dma', 'a'.repeat(63)]
const label: Target = {
  name: 'label',
  cases: 200_000,
  run(random) {
    const text = mutateText(random.of(LABELS), random)
    const read = readOrRefuse(() => parseServiceLabel(text), 'LABEL_INVALID')
    assert.equal(labelOfHost(`${text}.edge.test`, 'edge.test'), read, 'label and host name disagree')
    if (read === undefined) return
    assert.equal(read, text)
    assert.match(read, /^[a-z0-9][a-z0-9-]{1,61}[a-z0-9]$/)
    assert.notEqual(read, 'mtls')
  },
}

const DURATIONS = ['30s', '5m', '12h', '7d', '250ms', '999999999d']
const duration: Target = {
  name: 'duration',
  cases: 200_000,
  run(random) {
    const text = mutateText(random.of(DURATIONS), random)
    const ms = readOrRefuse(() => parseDuration(text), 'DURATION_INVALID')
    if (ms === undefined) return
    assert.ok(Number.isSafeInteger(ms) && ms >= 0)
    assert.equal(parseDuration(text.replace(/^0+(?=\d)/, '')), ms)
    assert.match(formatDuration(ms), /^\d+ (d|h|min|s)( \d+ (h|min|s))?$/)
  },
}

const LISTENS = [
  '127.0.0.1:8443',
  '[::1]:0',
  ':443',
  'edge.localhost:65535',
  'https://idp.mycorp.com/x',
  'http://[::1]:1',
]
const listen: Target = {
  name: 'listen',
  cases: 200_000,
  run(random) {
    const text = mutateText(random.of(LISTENS), random)
    const read = attempt(() => readListen(text))
    if (read) {
      assert.ok(Number.isInteger(read.port) && read.port >= 0 && read.port <= 65_535)
      const written = `${read.host.includes(':') ? `[${read.host}]` : read.host}:${read.port}`
      assert.deepEqual(readListen(written), read)
    }
    const issuer = attempt(() => readIssuer(text))
    if (!issuer) return
    assert.equal(readIssuer(issuer.href).href, issuer.href)
    assert.ok(issuer.protocol === 'https:' || isLoopback(issuer.hostname.replace(/^\[|\]$/g, '')))
  },
}

/** For readers whose refusal is a plain Error with the rest of a sentence. */
function attempt<T>(read: () => T): T | undefined {
  try {
    return read()
  } catch (error) {
    assert.equal((error as Error).constructor, Error, String(error))
    return undefined
  }
}

const allowList: Target = {
  name: 'allow-list',
  cases: 200_000,
  run(random) {
    const some = (texts: readonly string[]) =>
      Array.from({ length: random.below(4) }, () =>
        random.oneIn(3) ? mutateText(random.of(texts), random) : random.of(texts),
      )
    const list = {
      emailDomains: some(DOMAINS.slice(0, 4)),
      emailAddresses: some(ADDRESSES.slice(0, 3)),
      anyAuthenticated: random.oneIn(4),
    }
    const codes = ['DOMAIN_INVALID', 'ADDRESS_INVALID', 'ALLOW_LIST_EMPTY']
    const read = readOrRefuse(() => readAllowList(list), ...codes)
    if (!read) return
    assert.deepEqual(readAllowList(read), read)
    assert.deepEqual(read.emailDomains, [...new Set(list.emailDomains.map(parseEmailDomain))].sort())
    assert.deepEqual(read.emailAddresses, [...new Set(list.emailAddresses.map(parseEmailAddress))].sort())
  },
}

const CONFIGS = [
  'domain: edge.localhost\nlisten: 127.0.0.1:8443\nidentity: { dev: true }\n',
  `domain: edge.mycorp.com
data_dir: /var/lib/postern-edge # the keys
identity:
  issuer: https://accounts.google.com
  client_id: "1234"
  client_secret_file: client-secret
  email_domains: [mycorp.com]
  required_claims: { hd: mycorp.com, n: 1 }
operators:
  email_domains:
    - mycorp.com
    - eu.mycorp.com
certificates: { ttl: 15m, session: 8h }
limits:
  max_flows: 5000
metrics: { listen: "127.0.0.1:9464" }
`,
]
const CONFIG_WORDS = [
  ...listKeys().map((key) => `\n${key.replace('.', ':\n  ')}: ${EXAMPLES[key]}\n`),
  ...[
    '&a ',
    '*a',
    '<<: ',
    '!!js/function ',
    '!!binary ',
    '---\n',
    '...\n',
    '? ',
    '- ',
    '|\n  ',
    '>-\n  ',
    '%YAML 1.1\n',
  ],
  ...[
    '[',
    '{',
    '[[[[[[[[',
    '"',
    "'",
    '\t',
    '\n  ',
    ': ',
    '.inf',
    '.nan',
    '0x7f',
    '1e999',
    '~',
    'yes',
    '2001-01-01',
  ],
]
const FILES = {
  readSecret: () => 's3cret',
  checkCertificate: () => {},
  readCa: () => '',
  checkProgram: () => {},
  checkOwnMode: () => {},
}

const config: Target = {
  name: 'config',
  cases: 100_000,
  run(random) {
    const text = mutateText(random.of(CONFIGS), random, CONFIG_WORDS)
    const read = () => parseConfig(text, { name: 'edge.yaml', folder: '/etc/postern-edge', files: FILES })
    try {
      const parsed = read()
      for (const [key, value] of describeConfig(parsed)) assert.ok(key && typeof value === 'string')
      const { listen, metrics, certificates } = parsed
      const { adminLoginAgeMs, ...limits } = parsed.limits
      assert.ok(adminLoginAgeMs === undefined || Number.isSafeInteger(adminLoginAgeMs)) // none unless it is said
      if (parsed.identity.kind === 'dev')
        assert.ok(isLoopback(listen.host) || /unsafe_dev_identity/i.test(text))
      if (metrics) assert.ok(isLoopback(metrics.host) || text.includes('unsafe_other_addresses'))
      for (const number of [...Object.values(limits), ...Object.values(certificates)])
        assert.ok(Number.isSafeInteger(number) && number >= 0)
      assert.deepEqual(read(), parsed)
    } catch (error) {
      if (error instanceof assert.AssertionError) throw error
      assert.ok(error instanceof PosternError && error.code === 'CONFIG_INVALID', String(error))
      const problems = error.details?.problems as { line: number }[]
      const lastLine = text.split('\n').length
      assert.ok(problems.length > 0)
      for (const { line } of problems) assert.ok(line >= 1 && line <= lastLine, `line ${line} of ${lastLine}`)
    }
  },
}

export const TEXT_TARGETS: readonly Target[] = [
  messages,
  address,
  domain,
  label,
  duration,
  listen,
  allowList,
  config,
]
