import * as v from 'valibot'
import {
  durationReader,
  readAcmeDirectory,
  readBalancer,
  readCertificateName,
  readDomain,
  readEmailAddress,
  readEmailDomain,
  readIssuer,
  readListen,
  readStore,
  readSyslog,
  readWebhook,
} from './values.ts'

/** The configuration file: what may stand in it and what it means when it does not. `docs/config.md` says the same
 *  in words; a test compares the two. Unknown keys are found by `parse.ts`, all of them. */

const TEXT = 'must be text'
const text = v.pipe(v.string(TEXT), v.nonEmpty('must not be empty'), v.maxLength(4_096, 'is too long'))

function readBy<T>(read: (value: string) => T) {
  return v.pipe(
    text,
    v.rawTransform<string, T>(({ dataset, addIssue, NEVER }) => {
      try {
        return read(dataset.value)
      } catch (error) {
        addIssue({ message: (error as Error).message })
        return NEVER
      }
    }),
  )
}

function listOf<T>(read: (value: string) => T) {
  return v.optional(v.array(readBy(read), 'must be a list'), [])
}

function wholeNumber(initial: number, min: number, max: number) {
  return v.optional(
    v.pipe(
      v.number('must be a number'),
      v.integer('must be a whole number'),
      v.minValue(min, `must be ${min} or more`),
      v.maxValue(max, `must be ${max} or less`),
    ),
    initial,
  )
}

const duration = (initial: string, min: string, max: string) =>
  v.optional(readBy(durationReader(min, max)), initial)

const people = v.optional(
  v.object(
    { email_domains: listOf(readEmailDomain), email_addresses: listOf(readEmailAddress) },
    'must be a section',
  ),
  {},
)

const auditSink = v.pipe(
  v.strictObject(
    {
      webhook: v.optional(readBy(readWebhook)),
      secret_file: v.optional(text),
      syslog: v.optional(readBy(readSyslog)),
    },
    'must be { webhook: …, secret_file: … } or { syslog: … }, with nothing else',
  ),
  v.check(
    ({ webhook, secret_file, syslog }) =>
      (webhook === undefined) !== (syslog === undefined) &&
      (webhook === undefined) === (secret_file === undefined),
    'must be { webhook: …, secret_file: … } or { syslog: … }',
  ),
)

const identity = v.object(
  {
    issuer: v.optional(readBy(readIssuer)),
    client_id: v.optional(text),
    client_secret_file: v.optional(text),
    scopes: v.optional(
      v.pipe(
        v.array(text, 'must be a list'),
        v.check((scopes) => scopes.includes('openid'), 'must contain openid'),
      ),
      ['openid', 'email', 'profile'],
    ),
    groups_claim: v.optional(text, 'groups'),
    email_domains: listOf(readEmailDomain),
    required_claims: v.optional(
      v.record(
        v.string(),
        v.union([v.string(), v.number(), v.boolean()], 'must be text, a number, true or false'),
        'must be a section',
      ),
      {},
    ),
    unsafe_accept_unverified_email: v.optional(v.boolean('must be true or false'), false),
    dev: v.optional(v.boolean('must be true or false'), false),
    unsafe_dev_identity: v.optional(v.boolean('must be true or false'), false),
  },
  'must be a section',
)

const acme = v.object(
  {
    directory: readBy(readAcmeDirectory),
    accept_terms: v.literal(true, 'must be true: read the terms of the CA, and accept them here'),
    email: v.optional(readBy(readEmailAddress)),
    challenge: v.optional(
      v.picklist(['tls-alpn-01', 'http-01', 'dns-01'], 'must be tls-alpn-01, http-01 or dns-01'),
      'tls-alpn-01',
    ),
    names: v.pipe(listOf(readCertificateName), v.maxLength(98, 'has more than 98 entries')),
    http_listen: v.optional(readBy(readListen), ':80'),
    dns_hook: v.optional(text),
    ca_file: v.optional(text),
    eab_key_id: v.optional(text),
    eab_key_file: v.optional(text),
    retry: duration('1m', '1s', '6h'),
  },
  'must be a section',
)

export const ConfigFile = v.object(
  {
    domain: readBy(readDomain),
    listen: v.optional(readBy(readListen), ':443'),
    public_port: v.optional(
      v.pipe(
        v.number('must be a number'),
        v.integer('must be a whole number'),
        v.minValue(1, 'must be 1 or more'),
        v.maxValue(65_535, 'must be 65535 or less'),
      ),
    ),
    accept_proxy_protocol: listOf(readBalancer),
    data_dir: v.optional(text, 'data'),
    store: v.optional(readBy(readStore)),
    store_password_file: v.optional(text),
    on_store_loss: v.optional(
      v.picklist(['refuse_new', 'refuse_all'], 'must be refuse_new or refuse_all'),
      'refuse_new',
    ),
    store_loss_grace: duration('10m', '0s', '24h'),
    identity,
    login: v.optional(
      v.object(
        { device: v.optional(v.picklist(['on', 'off'], 'must be on or off'), 'off') },
        'must be a section',
      ),
      {},
    ),
    operators: people,
    admins: people,
    auditors: people,
    certificates: v.optional(
      v.object(
        {
          ttl: duration('5m', '1s', '24h'),
          backdate: duration('5m', '0s', '1h'),
          session: duration('12h', '1s', '30d'),
          connector_ttl: duration('24h', '1s', '30d'),
          enroll_token_max_ttl: duration('7d', '1m', '90d'),
          workload_max_ttl: duration('90d', '1m', '366d'),
          workload_max_lifetime: duration('366d', '1m', '3660d'),
        },
        'must be a section',
      ),
      {},
    ),
    ca: v.optional(
      v.object(
        { key_passphrase_file: v.optional(text), crl_lifetime: duration('24h', '1s', '30d') },
        'must be a section',
      ),
      {},
    ),
    ssh: v.optional(
      v.object(
        {
          ttl: duration('5m', '1s', '24h'),
          host_ttl: duration('7d', '1m', '90d'),
          shared_principal: v.optional(v.boolean('must be true or false'), true),
          revoke_key_ids: v.optional(v.boolean('must be true or false'), false),
          ca_key_type: v.optional(
            v.picklist(['ed25519', 'ecdsa', 'rsa'], 'must be ed25519, ecdsa or rsa'),
            'ed25519',
          ),
        },
        'must be a section',
      ),
      {},
    ),
    tls: v.optional(
      v.object(
        { certificate_file: v.optional(text), key_file: v.optional(text), acme: v.optional(acme) },
        'must be a section',
      ),
    ),
    limits: v.optional(
      v.object(
        {
          handshake_timeout: duration('10s', '1s', '5m'),
          max_client_hello_bytes: wholeNumber(16_384, 4_096, 65_536),
          max_pending_handshakes: wholeNumber(1_024, 1, 1_000_000),
          max_pending_handshakes_per_address: wholeNumber(512, 1, 1_000_000),
          failed_handshakes_per_minute: wholeNumber(600, 1, 1_000_000),
          max_flows: wholeNumber(10_000, 1, 1_000_000),
          max_http_connections: wholeNumber(4_096, 1, 1_000_000),
          max_http_connections_per_address: wholeNumber(512, 1, 1_000_000),
          failed_logins_per_minute: wholeNumber(120, 1, 1_000_000),
          max_data_connections_per_connector: wholeNumber(10_000, 2, 100_000),
          route_timeout: duration('10s', '1s', '5m'),
          certificates_per_minute: wholeNumber(600, 1, 1_000_000),
          flows_per_minute: wholeNumber(6_000, 1, 1_000_000),
          admin_login_age: v.optional(readBy(durationReader('1m', '30d'))),
        },
        'must be a section',
      ),
      {},
    ),
    audit: v.optional(
      v.object(
        {
          checkpoint_key_file: v.optional(text),
          checkpoint_records: wholeNumber(1_000, 10, 1_000_000),
          checkpoint_interval: duration('10m', '1m', '24h'),
          retention: v.optional(readBy(durationReader('1d', '36500d'))),
          sinks: v.optional(
            v.pipe(v.array(auditSink, 'must be a list'), v.maxLength(16, 'has more than 16 entries')),
            [],
          ),
        },
        'must be a section',
      ),
      {},
    ),
    metrics: v.optional(
      v.object(
        {
          listen: v.optional(readBy(readListen)),
          unsafe_other_addresses: v.optional(v.boolean('must be true or false'), false),
        },
        'must be a section',
      ),
      {},
    ),
  },
  'must be a section with keys',
)

export type ConfigFile = v.InferOutput<typeof ConfigFile>

/** An example for every key, shown with each problem. */
export const EXAMPLES: Readonly<Record<string, string>> = {
  identity: '{ issuer: …, client_id: …, client_secret_file: … }, or { dev: true }',
  domain: 'edge.example.com',
  listen: '":443"',
  public_port: '443',
  accept_proxy_protocol: '[10.0.0.5]',
  data_dir: '/var/lib/postern-edge',
  store: 'sqlite:/var/lib/postern-edge/edge.sqlite',
  store_password_file: '/etc/postern-edge/store-password',
  on_store_loss: 'refuse_new',
  store_loss_grace: '10m',
  'identity.issuer': 'https://accounts.google.com',
  'identity.client_id': 'postern-edge',
  'identity.client_secret_file': '/etc/postern-edge/client-secret',
  'identity.scopes': '[openid, email, profile]',
  'identity.groups_claim': 'groups',
  'identity.email_domains': '[mycorp.com]',
  'identity.required_claims': '{ hd: mycorp.com }',
  'identity.unsafe_accept_unverified_email': 'false',
  'identity.dev': 'true',
  'identity.unsafe_dev_identity': 'false',
  'login.device': 'off',
  'operators.email_domains': '[mycorp.com]',
  'operators.email_addresses': '[contractor@example.com]',
  'admins.email_domains': '[ops.mycorp.com]',
  'admins.email_addresses': '[admin@mycorp.com]',
  'auditors.email_domains': '[audit.mycorp.com]',
  'auditors.email_addresses': '[auditor@mycorp.com]',
  'certificates.ttl': '5m',
  'certificates.backdate': '5m',
  'certificates.session': '12h',
  'certificates.connector_ttl': '24h',
  'certificates.enroll_token_max_ttl': '7d',
  'certificates.workload_max_ttl': '90d',
  'certificates.workload_max_lifetime': '366d',
  'ca.crl_lifetime': '24h',
  'ca.key_passphrase_file': '/etc/postern-edge/ca-passphrase',
  'ssh.ttl': '5m',
  'ssh.host_ttl': '7d',
  'ssh.shared_principal': 'true',
  'ssh.revoke_key_ids': 'false',
  'ssh.ca_key_type': 'ed25519',
  'tls.certificate_file': '/etc/postern-edge/tls/fullchain.pem',
  'tls.key_file': '/etc/postern-edge/tls/privkey.pem',
  'tls.acme': '{ directory: https://acme-v02.api.letsencrypt.org/directory, accept_terms: true }',
  'tls.acme.directory': 'https://acme-v02.api.letsencrypt.org/directory',
  'tls.acme.accept_terms': 'true',
  'tls.acme.email': 'admin@mycorp.com',
  'tls.acme.challenge': 'dns-01',
  'tls.acme.names': '[build.edge.example.com]',
  'tls.acme.http_listen': '":80"',
  'tls.acme.dns_hook': '/etc/postern-edge/dns-hook',
  'tls.acme.ca_file': '/etc/postern-edge/acme-ca.pem',
  'tls.acme.eab_key_id': 'kid-1',
  'tls.acme.eab_key_file': '/etc/postern-edge/eab-key',
  'tls.acme.retry': '1m',
  'limits.handshake_timeout': '10s',
  'limits.max_client_hello_bytes': '16384',
  'limits.max_pending_handshakes': '1024',
  'limits.max_pending_handshakes_per_address': '512',
  'limits.failed_handshakes_per_minute': '600',
  'limits.max_flows': '10000',
  'limits.max_http_connections': '4096',
  'limits.max_http_connections_per_address': '512',
  'limits.failed_logins_per_minute': '120',
  'limits.max_data_connections_per_connector': '10000',
  'limits.route_timeout': '10s',
  'limits.certificates_per_minute': '600',
  'limits.flows_per_minute': '6000',
  'limits.admin_login_age': '1h',
  'audit.checkpoint_key_file': '/etc/postern-edge/audit-checkpoint.key',
  'audit.checkpoint_records': '1000',
  'audit.checkpoint_interval': '10m',
  'audit.retention': '400d',
  'audit.sinks': '[{ syslog: "tls://logs.mycorp.com:6514" }]',
  'metrics.listen': '127.0.0.1:9464',
  'metrics.unsafe_other_addresses': 'false',
}

interface Section {
  readonly entries: Readonly<Record<string, unknown>>
}

/** The section behind a schema, if it is one: `v.object` or an optional one. */
export function sectionOf(schema: unknown): Section | undefined {
  const { entries, wrapped } = schema as Partial<Section> & { wrapped?: unknown }
  if (entries) return { entries }
  return wrapped ? sectionOf(wrapped) : undefined
}

/** `identity.issuer`, …: every key that may stand in the file. */
export function listKeys(schema: unknown = ConfigFile, prefix = ''): string[] {
  return Object.entries(sectionOf(schema)!.entries).flatMap(([name, entry]) =>
    sectionOf(entry) ? listKeys(entry, `${prefix}${name}.`) : [`${prefix}${name}`],
  )
}
