import path from 'node:path'
import { PosternError } from '@postern/shared/errors'
import { askWhether, isMisspelling } from '@postern/shared/misspelling'
import * as v from 'valibot'
import { defaultCheckpointKeyFile } from '../audit/chain.ts'
import type { KeyLock } from '../ca/key-file.ts'
import { namesOfEdge } from '../server-certificate/files.ts'
import { parseStoreLocation, withPassword } from '../store/location.ts'
import type {
  AcmeConfig,
  AuditConfig,
  AuditSink,
  DevIdentity,
  EdgeConfig,
  UpstreamIdentity,
} from './config.ts'
import { ConfigFile, EXAMPLES, listKeys, sectionOf } from './schema.ts'
import { isLoopback, readListen } from './values.ts'
import { readYaml } from './yaml-file.ts'

/** One thing that is wrong with the file. */
export interface ConfigProblem {
  /** Line of the key, or of the section that misses it. */
  line: number
  /** `identity.issuer`; empty for the file as a whole. */
  key: string
  /** What stands there, shortened; undefined when nothing does or when it may be a secret. */
  value?: string | undefined
  message: string
  example?: string | undefined
}

/** How the files that the configuration names are read; throws an Error with what is wrong. */
export interface ConfigFiles {
  readSecret(file: string): string
  /** That only its owner can read the configuration file itself. Left out where there is no file yet. */
  checkOwnMode?(): void
  checkCertificate(certificateFile: string, keyFile: string, domain: string): void
  /** Certificates of CAs, PEM. */
  readCa(file: string): string
  /** That it can be run. */
  checkProgram(file: string): void
}

type Report = (keyPath: string, message: string, value?: unknown) => void

/** Reads the text of a configuration file.
 *  @param name of the file, for messages · @param folder where relative paths start
 *  @throws CONFIG_INVALID with all problems at once, in `details.problems` too */
export function parseConfig(
  text: string,
  parts: { name: string; folder: string; files: ConfigFiles },
): EdgeConfig {
  const yaml = readYaml(text)
  const problems: ConfigProblem[] = yaml.problems.map((problem) => ({ ...problem, key: '' }))
  if (problems.length > 0) throw invalid(parts.name, problems)

  const report: Report = (keyPath, message, value) => {
    problems.push({
      line: yaml.lineOf(keyPath.split('.')),
      key: keyPath,
      value: value === undefined ? undefined : describeValue(keyPath, value),
      message,
      example: EXAMPLES[keyPath.replace(/\.\d+$/, '')],
    })
  }
  reportUnknownKeys(yaml.content, ConfigFile, '', report)
  const result = v.safeParse(ConfigFile, yaml.content)
  for (const issue of result.issues ?? []) reportIssue(issue, report)
  reportContradictions(yaml.content, report)
  if (!result.typed || problems.length > 0) throw invalid(parts.name, problems)

  const config = toConfig(result.output, parts, report)
  if (problems.length > 0) throw invalid(parts.name, problems)
  return config
}

function reportUnknownKeys(content: unknown, schema: unknown, prefix: string, report: Report): void {
  const section = sectionOf(schema)
  // valibot takes a list for an object without its keys
  if (section && Array.isArray(content)) return report(prefix.slice(0, -1), 'must be a section, not a list')
  if (!section || !isSection(content)) return
  for (const [name, value] of Object.entries(content)) {
    const key = `${prefix}${name}`
    if (Object.hasOwn(section.entries, name)) {
      reportUnknownKeys(value, section.entries[name], `${key}.`, report)
    } else {
      // without its value: whoever writes client_secret: … has written a secret
      report(key, `is not a key${suggestion(key)}`)
    }
  }
}

function reportIssue(issue: v.BaseIssue<unknown>, report: Report): void {
  const key = v.getDotPath(issue) ?? ''
  if (issue.input === undefined) return report(key, 'is missing')
  if (issue.input === null) return report(key, 'has no value')
  report(key, issue.message, isSection(issue.input) ? undefined : issue.input)
}

/** What no single key shows. Looks at the file itself, so that it is reported with all other problems. */
function reportContradictions(content: unknown, report: Report): void {
  if (!isSection(content)) return
  if (isSection(content.metrics)) {
    const { listen, unsafe_other_addresses } = content.metrics
    if (unsafe_other_addresses !== true && !isLoopbackListen(listen)) {
      const message =
        'is served in the clear to everybody: name a loopback address, or unsafe_other_addresses: true'
      report('metrics.listen', message, listen)
    }
  }
  if (isSection(content.tls)) reportTlsContradictions(content.tls, report)
  if (!isSection(content.identity)) return
  const { identity, listen } = content
  if (identity.dev === true) {
    for (const key of ['issuer', 'client_id', 'client_secret_file']) {
      if (key in identity) report(`identity.${key}`, 'contradicts identity.dev: true, remove one of them')
    }
    if (identity.unsafe_dev_identity !== true && !isLoopbackListen(listen ?? ':443')) {
      report(
        'identity.dev',
        'believes any address, so it needs a loopback listen address, or unsafe_dev_identity: true',
        listen ?? ':443',
      )
    }
    return
  }
  for (const key of ['issuer', 'client_id', 'client_secret_file']) {
    if (!(key in identity)) report(`identity.${key}`, 'is missing')
  }
}

/** Either files or ACME, and all that each of them needs. */
function reportTlsContradictions(tls: Record<string, unknown>, report: Report): void {
  const files = ['certificate_file', 'key_file']
  if (!('acme' in tls)) {
    for (const key of files) if (!(key in tls)) report(`tls.${key}`, 'is missing')
    return
  }
  for (const key of files) if (key in tls) report(`tls.${key}`, 'contradicts tls.acme, remove one of them')
  if (!isSection(tls.acme)) return
  const { acme } = tls
  const needs = (key: string, other: string, isNeeded: boolean) => {
    if (isNeeded && !(key in acme)) report(`tls.acme.${key}`, `is missing: ${other} needs it`)
    if (!isNeeded && key in acme) report(`tls.acme.${key}`, `does nothing without ${other}`)
  }
  needs('dns_hook', 'challenge: dns-01', acme.challenge === 'dns-01')
  needs('eab_key_file', 'eab_key_id', 'eab_key_id' in acme)
}

function isLoopbackListen(listen: unknown): boolean {
  try {
    return isLoopback(readListen(String(listen)).host)
  } catch {
    return true // not there, or its own problem is reported already
  }
}

function toConfig(
  file: ConfigFile,
  parts: { folder: string; files: ConfigFiles },
  report: Report,
): EdgeConfig {
  const resolve = (name: string) => path.resolve(parts.folder, name)
  const dataDir = resolve(file.data_dir)
  return {
    domain: file.domain,
    listen: file.listen,
    publicPort: file.public_port,
    acceptProxyProtocol: file.accept_proxy_protocol,
    dataDir,
    store: toStore(file, path.join(dataDir, 'edge.sqlite'), resolve, parts.files, report),
    storeLoss: { policy: file.on_store_loss, graceMs: file.store_loss_grace },
    identity: file.identity.dev ? { kind: 'dev' } : toUpstream(file, resolve, parts.files, report),
    login: { device: file.login.device === 'on' },
    operators: toPeople(file.operators),
    admins: toPeople(file.admins),
    auditors: toPeople(file.auditors),
    certificates: {
      ttlMs: file.certificates.ttl,
      backdateMs: file.certificates.backdate,
      sessionMs: file.certificates.session,
      connectorTtlMs: file.certificates.connector_ttl,
      enrollTokenMaxTtlMs: file.certificates.enroll_token_max_ttl,
      workloadMaxTtlMs: file.certificates.workload_max_ttl,
      workloadMaxLifetimeMs: file.certificates.workload_max_lifetime,
    },
    ca: {
      crlLifetimeMs: file.ca.crl_lifetime,
      keyLock: toKeyLock(file.ca.key_passphrase_file, resolve, parts.files, report),
    },
    ssh: {
      ttlMs: file.ssh.ttl,
      hostTtlMs: file.ssh.host_ttl,
      sharedPrincipal: file.ssh.shared_principal,
      revokeKeyIds: file.ssh.revoke_key_ids,
      caKeyType: file.ssh.ca_key_type,
    },
    tls: file.tls && toTls(file.tls, file.domain, resolve, parts.files, report),
    limits: {
      handshakeTimeoutMs: file.limits.handshake_timeout,
      maxClientHelloBytes: file.limits.max_client_hello_bytes,
      maxPendingHandshakes: file.limits.max_pending_handshakes,
      maxPendingHandshakesPerAddress: file.limits.max_pending_handshakes_per_address,
      failedHandshakesPerMinute: file.limits.failed_handshakes_per_minute,
      maxFlows: file.limits.max_flows,
      maxHttpConnections: file.limits.max_http_connections,
      maxHttpConnectionsPerAddress: file.limits.max_http_connections_per_address,
      failedLoginsPerMinute: file.limits.failed_logins_per_minute,
      maxDataConnectionsPerConnector: file.limits.max_data_connections_per_connector,
      routeTimeoutMs: file.limits.route_timeout,
      certificatesPerMinute: file.limits.certificates_per_minute,
      flowsPerMinute: file.limits.flows_per_minute,
      adminLoginAgeMs: file.limits.admin_login_age,
    },
    audit: toAudit(file.audit, dataDir, resolve, parts.files, report),
    metrics: file.metrics.listen,
  }
}

/** Shorter ones are found by trying, however long each try takes. */
const MIN_PASSPHRASE_CHARACTERS = 16

function toKeyLock(
  passphraseFile: string | undefined,
  resolve: (name: string) => string,
  files: ConfigFiles,
  report: Report,
): KeyLock | undefined {
  if (passphraseFile === undefined) return undefined
  const file = resolve(passphraseFile)
  const complain = (message: string) => report('ca.key_passphrase_file', message, file)
  const passphrase = attempt(() => files.readSecret(file), complain)
  if (passphrase !== undefined && passphrase.length < MIN_PASSPHRASE_CHARACTERS) {
    complain(`holds fewer than ${MIN_PASSPHRASE_CHARACTERS} characters, make one: openssl rand -base64 32`)
  }
  return { passphrase: passphrase ?? '', file }
}

function toAudit(
  audit: ConfigFile['audit'],
  dataDir: string,
  resolve: (name: string) => string,
  files: ConfigFiles,
  report: Report,
): AuditConfig {
  const { checkpoint_key_file } = audit
  return {
    checkpointKeyFile:
      checkpoint_key_file === undefined ? defaultCheckpointKeyFile(dataDir) : resolve(checkpoint_key_file),
    checkpointRecords: audit.checkpoint_records,
    checkpointIntervalMs: audit.checkpoint_interval,
    retentionMs: audit.retention,
    sinks: audit.sinks.map(({ webhook, secret_file, syslog }): AuditSink => {
      if (syslog) return { kind: 'syslog', address: syslog }
      const secretFile = resolve(secret_file!)
      const secret = attempt(
        () => files.readSecret(secretFile),
        (message) => report('audit.sinks', message, secretFile),
      )
      return { kind: 'webhook', url: webhook!, secret: secret ?? '' }
    }),
  }
}

function toStore(
  file: ConfigFile,
  defaultPath: string,
  resolve: (name: string) => string,
  files: ConfigFiles,
  report: Report,
): string {
  const store = file.store ?? `sqlite:${defaultPath}`
  const location = parseStoreLocation(store)
  if (location.kind === 'postgres' && location.password !== undefined) {
    attempt(
      () => files.checkOwnMode?.(),
      (message) => report('store', `has a password, and this file ${message}`),
    )
  }
  if (file.store_password_file !== undefined && location.kind === 'postgres') {
    const passwordFile = resolve(file.store_password_file)
    const complete = attempt(
      () => withPassword(store, files.readSecret(passwordFile)),
      (message) => report('store_password_file', message, passwordFile),
    )
    return complete ?? store
  }
  return location.kind === 'sqlite' ? `sqlite:${resolve(location.path)}` : store
}

function toUpstream(
  { identity }: ConfigFile,
  resolve: (name: string) => string,
  files: ConfigFiles,
  report: Report,
): UpstreamIdentity | DevIdentity {
  const secretFile = resolve(identity.client_secret_file!)
  const clientSecret = attempt(
    () => files.readSecret(secretFile),
    (message) => report('identity.client_secret_file', message, secretFile),
  )
  return {
    kind: 'upstream',
    issuer: identity.issuer!,
    clientId: identity.client_id!,
    clientSecret: clientSecret ?? '',
    scopes: identity.scopes,
    groupsClaim: identity.groups_claim,
    emailDomains: identity.email_domains,
    requiredClaims: identity.required_claims,
    unsafeAcceptUnverifiedEmail: identity.unsafe_accept_unverified_email,
  }
}

function toTls(
  tls: NonNullable<ConfigFile['tls']>,
  domain: string,
  resolve: (name: string) => string,
  files: ConfigFiles,
  report: Report,
): EdgeConfig['tls'] {
  if (tls.acme) return toAcme(tls.acme, domain, resolve, files, report)
  const [certificateFile, keyFile] = [resolve(tls.certificate_file!), resolve(tls.key_file!)]
  attempt(
    () => files.checkCertificate(certificateFile, keyFile, domain),
    (message) => report('tls.certificate_file', message, certificateFile),
  )
  return { kind: 'files', certificateFile, keyFile }
}

function toAcme(
  acme: Acme,
  domain: string,
  resolve: (name: string) => string,
  files: ConfigFiles,
  report: Report,
): AcmeConfig {
  const useFile = <T>(key: string, name: string | undefined, use: (file: string) => T): T | undefined => {
    if (name === undefined) return undefined
    const file = resolve(name)
    return attempt(
      () => use(file),
      (message) => report(`tls.acme.${key}`, message, file),
    )
  }
  useFile('dns_hook', acme.dns_hook, files.checkProgram)
  const hmacKey = useFile('eab_key_file', acme.eab_key_file, files.readSecret)
  return {
    kind: 'acme',
    directory: acme.directory,
    caPem: useFile('ca_file', acme.ca_file, files.readCa),
    email: acme.email,
    names: namesOfCertificate(acme, domain, report),
    challenge: toChallenge(acme, resolve),
    externalAccount:
      acme.eab_key_id === undefined ? undefined : { keyId: acme.eab_key_id, hmacKey: hmacKey ?? '' },
    firstRetryMs: acme.retry,
  }
}

type Acme = NonNullable<NonNullable<ConfigFile['tls']>['acme']>

function toChallenge(acme: Acme, resolve: (name: string) => string): AcmeConfig['challenge'] {
  if (acme.challenge === 'dns-01') return { type: 'dns-01', hook: resolve(acme.dns_hook!) }
  if (acme.challenge === 'http-01') return { type: 'http-01', listen: acme.http_listen }
  return { type: 'tls-alpn-01' }
}

/** What the edge needs by itself, and what was asked for beyond: with DNS-01 a wildcard, else each name for itself. */
function namesOfCertificate({ challenge, names }: Acme, domain: string, report: Report): string[] {
  const isWild = challenge === 'dns-01'
  const own = isWild ? [domain, `*.${domain}`] : namesOfEdge(domain)
  for (const [index, name] of names.entries()) {
    const bare = name.replace(/^\*\./, '')
    const key = `tls.acme.names.${index}`
    if (bare !== domain && !bare.endsWith(`.${domain}`)) report(key, `is not below ${domain}`, name)
    else if (name !== bare && !isWild) report(key, 'is a wildcard, which needs challenge: dns-01', name)
  }
  const isCovered = (name: string) => isWild && name.split('.').slice(1).join('.') === domain
  return [...new Set([...own, ...names.filter((name) => !isCovered(name))])]
}

function toPeople(people: ConfigFile['operators']): EdgeConfig['operators'] {
  return {
    emailDomains: people.email_domains,
    emailAddresses: people.email_addresses,
    anyAuthenticated: false,
  }
}

function attempt<T>(read: () => T, onProblem: (message: string) => void): T | undefined {
  try {
    return read()
  } catch (error) {
    onProblem((error as Error).message)
    return undefined
  }
}

function isSection(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/** Short, and never a secret: a store's URL may hold a password. */
function describeValue(key: string, value: unknown): string {
  if (key === 'store') return JSON.stringify(String(value).replace(/:\/\/.*$/, '://…'))
  const text = JSON.stringify(value) ?? String(value)
  return text.length > 80 ? `${text.slice(0, 79)}…` : text
}

const KNOWN_KEYS = [...new Set([...Object.keys(ConfigFile.entries), ...listKeys()])]

function suggestion(key: string): string {
  const last = key.split('.').at(-1)!
  const near = KNOWN_KEYS.filter((known) => known.split('.').at(-1) === last || isMisspelling(key, known))
  if (near.length > 0) return askWhether(near)
  return last === 'client_secret' ? ': write it into a file and name that in client_secret_file' : ''
}

function invalid(name: string, problems: ConfigProblem[]): PosternError {
  problems.sort((a, b) => a.line - b.line)
  const count = problems.length === 1 ? 'one problem' : `${problems.length} problems`
  const lines = problems.map((problem) => `  ${describeProblem(problem)}`)
  return new PosternError('CONFIG_INVALID', [`${name} has ${count}`, ...lines].join('\n'), {
    details: { file: name, problems },
  })
}

/** `line 3: listen: "443" is not HOST:PORT (example: ":443")` */
export function describeProblem({ line, key, value, message, example }: ConfigProblem): string {
  const what = [key && `${key}:`, value, message].filter(Boolean).join(' ')
  return `line ${line}: ${what}${example === undefined ? '' : ` (example: ${example})`}`
}
