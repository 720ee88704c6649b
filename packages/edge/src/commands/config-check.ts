import { describeAllowList } from '@postern/shared/identity'
import type { Command } from 'commander'
import { describeSink, type EdgeConfig } from '../config/config.ts'
import { loadConfig } from '../config/load.ts'
import type { ProgramParts } from '../program.ts'
import { describeStore } from '../store/location.ts'
import { configOption } from './options.ts'

export function addConfigCheck(group: Command, parts: ProgramParts): void {
  group
    .command('check')
    .description('show what the edge understands of a configuration file, or all its problems')
    .addOption(configOption())
    .option('--json', 'print one JSON object')
    .addHelpText(
      'after',
      `
Starts nothing and changes nothing. Exit code 2 when the file has problems.

Examples:
  $ postern-edge config check --config /etc/postern-edge/edge.yaml`,
    )
    .action((options: { config: string; json?: boolean }) => {
      const config = loadConfig(options.config)
      const rows = describeConfig(config)
      if (options.json) {
        parts.stdout.write(`${JSON.stringify(Object.fromEntries(rows), null, 2)}\n`)
      } else {
        const width = Math.max(...rows.map(([key]) => key.length))
        for (const [key, value] of rows) parts.stdout.write(`${key.padEnd(width)}  ${value}\n`)
      }
      for (const warning of warningsOf(config)) parts.stderr.write(`postern-edge: ${warning}\n`)
    })
}

/** Every setting by its key in the file, as people read it. Never the secret. */
export function describeConfig(config: EdgeConfig): [string, string][] {
  const { ca, listen, certificates, limits, ssh, tls } = config
  const host = listen.host === '' ? 'every address' : listen.host
  return [
    ['domain', config.domain],
    ['listen', `${host}, port ${listen.port === 0 ? 'chosen at start' : listen.port}`],
    ['public_port', config.publicPort === undefined ? 'as listen' : String(config.publicPort)],
    ['accept_proxy_protocol', config.acceptProxyProtocol.join(', ') || 'from nobody'],
    ['data_dir', config.dataDir],
    ['store', describeStore(config.store)],
    ['on_store_loss', config.storeLoss.policy],
    ['store_loss_grace', duration(config.storeLoss.graceMs)],
    ...describeIdentity(config.identity),
    ['login.device', config.login.device ? 'on' : 'off'],
    ['operators', describeAllowList(config.operators)],
    ['admins', describeAllowList(config.admins)],
    ['auditors', describeAllowList(config.auditors)],
    ['certificates.ttl', duration(certificates.ttlMs)],
    ['certificates.backdate', duration(certificates.backdateMs)],
    ['certificates.session', duration(certificates.sessionMs)],
    ['certificates.connector_ttl', duration(certificates.connectorTtlMs)],
    ['certificates.enroll_token_max_ttl', duration(certificates.enrollTokenMaxTtlMs)],
    ['certificates.workload_max_ttl', duration(certificates.workloadMaxTtlMs)],
    ['certificates.workload_max_lifetime', duration(certificates.workloadMaxLifetimeMs)],
    ['ca.crl_lifetime', duration(ca.crlLifetimeMs)],
    [
      'ca.key_passphrase_file',
      ca.keyLock ? `read, ${ca.keyLock.passphrase.length} characters` : 'none: keys are not encrypted',
    ],
    ['ssh.ttl', duration(ssh.ttlMs)],
    ['ssh.host_ttl', duration(ssh.hostTtlMs)],
    ['ssh.shared_principal', String(ssh.sharedPrincipal)],
    ['ssh.revoke_key_ids', String(ssh.revokeKeyIds)],
    ['ssh.ca_key_type', ssh.caKeyType],
    ['tls', describeTls(tls)],
    ['limits.handshake_timeout', duration(limits.handshakeTimeoutMs)],
    ['limits.max_client_hello_bytes', String(limits.maxClientHelloBytes)],
    ['limits.max_pending_handshakes', String(limits.maxPendingHandshakes)],
    ['limits.max_pending_handshakes_per_address', String(limits.maxPendingHandshakesPerAddress)],
    ['limits.failed_handshakes_per_minute', String(limits.failedHandshakesPerMinute)],
    ['limits.max_flows', String(limits.maxFlows)],
    ['limits.max_http_connections', String(limits.maxHttpConnections)],
    ['limits.max_http_connections_per_address', String(limits.maxHttpConnectionsPerAddress)],
    ['limits.failed_logins_per_minute', String(limits.failedLoginsPerMinute)],
    ['limits.max_data_connections_per_connector', String(limits.maxDataConnectionsPerConnector)],
    ['limits.route_timeout', duration(limits.routeTimeoutMs)],
    ['limits.certificates_per_minute', String(limits.certificatesPerMinute)],
    ['limits.flows_per_minute', String(limits.flowsPerMinute)],
    [
      'limits.admin_login_age',
      limits.adminLoginAgeMs === undefined ? 'any' : duration(limits.adminLoginAgeMs),
    ],
    ['audit.checkpoint_key_file', config.audit.checkpointKeyFile],
    ['audit.checkpoint_records', String(config.audit.checkpointRecords)],
    ['audit.checkpoint_interval', duration(config.audit.checkpointIntervalMs)],
    [
      'audit.retention',
      config.audit.retentionMs === undefined ? 'for ever' : duration(config.audit.retentionMs),
    ],
    ['audit.sinks', config.audit.sinks.map(describeSink).join(', ') || 'none'],
    [
      'metrics.listen',
      config.metrics ? `${config.metrics.host || 'every address'}, port ${config.metrics.port}` : 'off',
    ],
  ]
}

function describeIdentity(identity: EdgeConfig['identity']): [string, string][] {
  if (identity.kind === 'dev') return [['identity', 'dev: believes any address']]
  const claims = Object.entries(identity.requiredClaims).map(([name, value]) => `${name}: ${value}`)
  return [
    ['identity.issuer', identity.issuer.href],
    ['identity.client_id', identity.clientId],
    ['identity.client_secret_file', `read, ${identity.clientSecret.length} characters`],
    ['identity.scopes', identity.scopes.join(' ')],
    ['identity.groups_claim', identity.groupsClaim],
    ['identity.email_domains', identity.emailDomains.join(', ') || 'every domain'],
    ['identity.required_claims', claims.join(', ') || 'none'],
    ['identity.unsafe_accept_unverified_email', String(identity.unsafeAcceptUnverifiedEmail)],
  ]
}

function describeTls(tls: EdgeConfig['tls']): string {
  if (!tls) return 'internal CA'
  if (tls.kind === 'files') return `${tls.certificateFile}, ${tls.keyFile}`
  return `${tls.directory.href} by ${tls.challenge.type} for ${tls.names.join(', ')}`
}

/** Valid, but perhaps not what was meant. */
function warningsOf(config: EdgeConfig): string[] {
  const warnings: string[] = []
  const { identity, operators } = config
  if (operators.emailDomains.length + operators.emailAddresses.length === 0) {
    warnings.push('nobody may expose a service: name people or domains under operators')
  }
  if (identity.kind === 'upstream' && identity.emailDomains.length === 0) {
    warnings.push('the provider may vouch for every domain: name yours under identity.email_domains')
  }
  if (identity.kind === 'upstream' && identity.unsafeAcceptUnverifiedEmail) {
    warnings.push('addresses that the provider did not verify are believed')
  }
  if (identity.kind === 'dev') warnings.push('everybody who reaches the edge is whoever they like')
  return warnings
}

function duration(ms: number): string {
  const units: [number, string][] = [
    [86_400_000, 'd'],
    [3_600_000, 'h'],
    [60_000, 'm'],
    [1_000, 's'],
    [1, 'ms'],
  ]
  const [size, unit] = units.find(([size]) => ms >= size && ms % size === 0) ?? [1_000, 's']
  return `${ms / size}${unit}`
}
