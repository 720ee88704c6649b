import type { AllowList } from '@postern/shared/identity'
import type { KeyLock } from '../ca/key-file.ts'

/** The edge's settings after parsing: complete, checked, in the units the names say. Nobody reads the file or
 *  the environment after this. */
export interface EdgeConfig {
  /** `edge.example.com`; services are `<label>.edge.example.com`. Lower case. */
  domain: string
  /** `host` is a name or an IP address without brackets; empty means every address. */
  listen: { host: string; port: number }
  /** Port that clients see, when a balancer or port mapping stands in front; else the listening port. */
  publicPort: number | undefined
  /** Addresses and networks of balancers: every connection of theirs begins with a PROXY header, and it is believed. */
  acceptProxyProtocol: readonly string[]
  dataDir: string
  /** `sqlite:PATH` or `postgres://…`, with the password in it: show it with `describeStore` only. */
  store: string
  /** What an edge does that has lost its store, and how long live flows stay under `refuse_new`. */
  storeLoss: { policy: 'refuse_new' | 'refuse_all'; graceMs: number }
  identity: UpstreamIdentity | DevIdentity
  login: { device: boolean }
  /** Who may expose services. */
  operators: AllowList
  /** Who sees everything and changes it. */
  admins: AllowList
  /** Who sees everything and changes nothing. */
  auditors: AllowList
  certificates: {
    /** Client certificates: valid this long ahead. */
    ttlMs: number
    /** And this long before now, for clocks that are behind. */
    backdateMs: number
    /** A login ends after this, whatever happens. */
    sessionMs: number
    connectorTtlMs: number
    /** An enroll token may not be made to live longer. */
    enrollTokenMaxTtlMs: number
    /** Of each certificate of a program, and of all renewals together. */
    workloadMaxTtlMs: number
    workloadMaxLifetimeMs: number
  }
  ca: {
    /** A list of revoked certificates says that the next one comes after this. */
    crlLifetimeMs: number
    /** What their keys are encrypted under; undefined: they are not. */
    keyLock: KeyLock | undefined
  }
  ssh: {
    /** User certificates: valid this long ahead. */
    ttlMs: number
    hostTtlMs: number
    /** Whether `postern_ssh_signed` may stand in certificates. */
    sharedPrincipal: boolean
    /** Whether the list of revoked certificates names key ids, which are addresses, to everybody who asks. */
    revokeKeyIds: boolean
    /** Of authorities that are not there yet. */
    caKeyType: 'ed25519' | 'ecdsa' | 'rsa'
  }
  /** Where the edge's own certificate comes from; undefined means its internal CA. */
  tls: { kind: 'files'; certificateFile: string; keyFile: string } | AcmeConfig | undefined
  limits: EdgeLimits
  audit: AuditConfig
  /** Where `/metrics` is served in the clear; undefined means nowhere. */
  metrics: { host: string; port: number } | undefined
}

/** `https://edge.example.com`, with the port where it is not 443.
 *  @param port where it listens, once that is known */
export function publicOrigin(
  { domain, listen, publicPort }: Pick<EdgeConfig, 'domain' | 'listen' | 'publicPort'>,
  port = listen.port,
): string {
  const seen = publicPort ?? port
  return seen === 443 ? `https://${domain}` : `https://${domain}:${seen}`
}

/** A certificate by ACME (RFC 8555). */
export interface AcmeConfig {
  kind: 'acme'
  directory: URL
  /** Who signs the server's own certificate; undefined stands for the public CAs. */
  caPem: string | undefined
  email: string | undefined
  /** All that the certificate is for, the edge's domain first. */
  names: readonly string[]
  challenge:
    | { type: 'tls-alpn-01' }
    | { type: 'http-01'; listen: { host: string; port: number } }
    | { type: 'dns-01'; hook: string }
  /** Account that the CA has given out, with its key in base64url. */
  externalAccount: { keyId: string; hmacKey: string } | undefined
  /** First wait after a failure, and the least between two orders. */
  firstRetryMs: number
}

export interface AuditConfig {
  /** Private key that signs checkpoints; made when it is missing. */
  checkpointKeyFile: string
  /** A checkpoint after so many records, or this long after the one before. */
  checkpointRecords: number
  checkpointIntervalMs: number
  /** Older records are deleted; undefined: none are. */
  retentionMs: number | undefined
  sinks: readonly AuditSink[]
}

/** Where records are handed to as well. */
export type AuditSink =
  | { kind: 'webhook'; url: URL; secret: string }
  | { kind: 'syslog'; address: SyslogAddress }

export type SyslogAddress = { path: string } | { host: string; port: number }

/** As the log names it too; webhooks take no secret in their URL. */
export function describeSink(sink: AuditSink): string {
  if (sink.kind === 'webhook') return sink.url.href
  const { address } = sink
  if ('path' in address) return `unix:${address.path}`
  return `tls://${address.host.includes(':') ? `[${address.host}]` : address.host}:${address.port}`
}

export interface UpstreamIdentity {
  kind: 'upstream'
  issuer: URL
  clientId: string
  clientSecret: string
  scopes: readonly string[]
  groupsClaim: string
  /** Domains this provider may vouch for; empty means every domain. */
  emailDomains: readonly string[]
  /** Claims that must be there with exactly this value (or contain it, for arrays). */
  requiredClaims: Readonly<Record<string, string | number | boolean>>
  unsafeAcceptUnverifiedEmail: boolean
}

/** A page that believes any address. For trying Postern out. */
export interface DevIdentity {
  kind: 'dev'
}

export interface EdgeLimits {
  /** A ClientHello that is not whole after this long is dropped. */
  handshakeTimeoutMs: number
  maxClientHelloBytes: number
  /** Connections before their handshake is done. */
  maxPendingHandshakes: number
  /** Of these, from one address. */
  maxPendingHandshakesPerAddress: number
  /** Handshakes of one address, of strangers that failed. */
  failedHandshakesPerMinute: number
  /** Flows at once, over all services. */
  maxFlows: number
  /** Connections of each HTTP room, after their handshake. */
  maxHttpConnections: number
  /** Of one address, on which nobody has shown who they are. */
  maxHttpConnectionsPerAddress: number
  /** Of one address: sign-ins, codes and tokens that were refused. */
  failedLoginsPerMinute: number
  /** Data connections of one connector, used and warm. */
  maxDataConnectionsPerConnector: number
  /** How long a flow waits for a data connection and for the service to answer. */
  routeTimeoutMs: number
  /** Of one identity, TLS and SSH together. */
  certificatesPerMinute: number
  /** Of one identity, over all services. */
  flowsPerMinute: number
  /** Administrators cut and revoke with a login no older than this; undefined asks for none. */
  adminLoginAgeMs: number | undefined
}
