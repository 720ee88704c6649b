import type { RevocationRequest, RevocationResponse } from '@postern/shared/api/revocations'
import type { SshSettings } from '@postern/shared/api/ssh'
import type { Checkpoint } from '@postern/shared/audit/checkpoint'
import { type ErrorCode, PosternError } from '@postern/shared/errors'
import type { AllowList } from '@postern/shared/identity'
import type { Policy } from '@postern/shared/policy'
import type { RuleKind } from '../policy/evaluate.ts'

/** What the audit log knows. An event is a fact about people, services and certificates, with the ids that lead
 *  to the rest; never a token, a key, or a byte of a flow. All times are epoch milliseconds; `record` adds when
 *  it happened. A new type needs its name in `TYPES` too; renaming one breaks the readers of old logs. */
export type AuditEvent =
  | LoginOk
  | LoginRefused
  | RequestRefused
  | SessionEnded
  | CertificateIssued
  | CertificateRefused
  | RevocationDone
  | IdentityLocked
  | IdentityUnlocked
  | ConnectorAttached
  | ConnectorLost
  | ConnectorRefused
  | ConnectorRenewed
  | ConnectorSuperseded
  | WorkloadSuperseded
  | ServiceCreated
  | ServiceUpdated
  | ServiceDeleted
  | PolicyUpdated
  | SshHostKeysRecorded
  | SshHostKeysChanged
  | SshHostKeysAccepted
  | EnrollTokenCreated
  | EnrollTokenCancelled
  | EnrollTokenUsed
  | EnrollTokenRefused
  | FlowDecided
  | FlowRefused
  | FlowClosed
  | AddressLimited
  | AuditChainStarted
  | AuditCheckpoint
  | AuditRead
  | AuditPruned

export type AuditEventType = AuditEvent['type']

/** A record of all, so that the compiler misses none. */
const TYPES: Readonly<Record<AuditEventType, true>> = {
  'login.ok': true,
  'login.refused': true,
  'request.refused': true,
  'session.ended': true,
  'certificate.issued': true,
  'certificate.refused': true,
  'revocation.done': true,
  'identity.locked': true,
  'identity.unlocked': true,
  'connector.attached': true,
  'connector.lost': true,
  'connector.refused': true,
  'connector.renewed': true,
  'connector.superseded': true,
  'workload.superseded': true,
  'service.created': true,
  'service.updated': true,
  'service.deleted': true,
  'policy.updated': true,
  'ssh.host_keys_recorded': true,
  'ssh.host_keys_changed': true,
  'ssh.host_keys_accepted': true,
  'enroll_token.created': true,
  'enroll_token.cancelled': true,
  'enroll_token.used': true,
  'enroll_token.refused': true,
  'flow.decided': true,
  'flow.refused': true,
  'flow.closed': true,
  'address.limited': true,
  'audit.chain_started': true,
  'audit.checkpoint': true,
  'audit.read': true,
  'audit.pruned': true,
}

/** @throws REQUEST_INVALID with all types there are: a misspelt one must not look like an empty log */
export function parseEventType(text: string): AuditEventType {
  if (Object.hasOwn(TYPES, text)) return text as AuditEventType
  throw new PosternError('REQUEST_INVALID', `there is no record of type ${JSON.stringify(text)}`, {
    hint: `the types are: ${Object.keys(TYPES).sort().join(', ')}`,
  })
}

/** A member that may be missing, or be undefined where it is written. */
type Maybe<T> = T | undefined

export interface LoginOk {
  type: 'login.ok'
  identityId: string
  sessionId: string
  issuer: string
  subject: string
  email: string
  /** `device`: the code of a program was typed into a browser. */
  kind: 'browser' | 'device'
  clientId: string
  clientAddress: string
  /** Address of that browser; `clientAddress` is the program's. */
  confirmedFrom?: Maybe<string>
  /** End of the session. */
  expiresAt: number
}

/** Somebody came back from the provider and was not let in. Without `subject` and `email` the provider has named
 *  nobody: those are counted, as in `FlowRefused`. */
export interface LoginRefused extends Counted {
  type: 'login.refused'
  code: ErrorCode
  reason?: Maybe<string>
  issuer?: Maybe<string>
  subject?: Maybe<string>
  email?: Maybe<string>
}

/** A request of the API or of the sign-in was refused, and no other event says so. Without `identityId` it was a
 *  stranger's: those are counted, as in `FlowRefused`. */
export interface RequestRefused extends Counted {
  type: 'request.refused'
  code: ErrorCode
  /** The one of the edge's log. */
  requestId?: Maybe<string>
  method?: Maybe<string>
  /** Without the query. */
  path?: Maybe<string>
  identityId?: Maybe<string>
  email?: Maybe<string>
  sessionId?: Maybe<string>
}

export interface SessionEnded {
  type: 'session.ended'
  sessionId: string
  identityId: string
  email?: Maybe<string>
  /** `logout`, `revoked`, … */
  reason: string
}

interface CertificateSubject {
  /** `ssh` for users, `ssh-host` for servers; `server` for private services. */
  kind: 'client' | 'connector' | 'workload' | 'server' | 'ssh' | 'ssh-host'
  /** Who asked: of a workload's first certificate its maker, of the next ones itself. */
  identityId: string
  email: string
  clientAddress: string
  /** On the edge's host: who has become that user. */
  sudoUser?: Maybe<string>
}

export interface CertificateIssued extends CertificateSubject {
  type: 'certificate.issued'
  /** Of TLS in hex, of ssh in decimal, as `ssh-keygen -L` prints it. */
  certificateSerial: string
  /** TLS: SHA-256 of the public key. */
  keyHash?: Maybe<string>
  /** ssh: `SHA256:…` of the public key. */
  fingerprint?: Maybe<string>
  /** ssh: the names in it. */
  principals?: Maybe<readonly string[]>
  /** Left out of one for a private service, which has `names`: DNS names and IP addresses. */
  serviceId?: Maybe<string>
  names?: Maybe<readonly string[]>
  label?: Maybe<string>
  sessionId?: Maybe<string>
  connectorId?: Maybe<string>
  machine?: Maybe<string>
  notBefore: number
  notAfter: number
  /** Workloads: its name and lineage, and when the last renewal ends. */
  workload?: Maybe<string>
  workloadId?: Maybe<string>
  renewableUntil?: Maybe<number>
  /** A renewal: of the certificate that it replaces. */
  previousSerial?: Maybe<string>
}

export interface CertificateRefused extends CertificateSubject {
  type: 'certificate.refused'
  workload?: Maybe<string>
  /** A renewal: the certificate that asked for it. */
  shownSerial?: Maybe<string>
  code: ErrorCode
  /** The policy's rule, where the policy refused. */
  rule?: Maybe<string>
  serviceId?: Maybe<string>
  label?: Maybe<string>
}

/** Who did it: an administrator, the owner of a service, or a person for themselves; or a user of the edge's host
 *  (`host:root`), with no address. */
interface DoneBy {
  identityId: string
  email: string
  clientAddress: string
  /** On the edge's host: who has become that user. */
  sudoUser?: Maybe<string>
}

/** Somebody took back certificates, sessions, connectors or flows. What ends with them is not told one by one. */
export interface RevocationDone extends DoneBy {
  type: 'revocation.done'
  revoked: RevocationRequest
  /** Where one was given, as lists of revoked certificates spell it. */
  reason?: Maybe<string>
  receipt: RevocationResponse
}

export interface IdentityLocked extends DoneBy {
  type: 'identity.locked'
  lockedEmail: string
  /** Left out: until somebody ends it. */
  until?: Maybe<number>
  reason: string
  receipt: RevocationResponse
}

export interface IdentityUnlocked extends DoneBy {
  type: 'identity.unlocked'
  lockedEmail: string
}

interface ConnectorFacts {
  connectorId: string
  serviceId: string
  label?: Maybe<string>
  /** The operator who registered it. */
  identityId?: Maybe<string>
  email?: Maybe<string>
  certificateSerial?: Maybe<string>
  machine?: Maybe<string>
}

export interface ConnectorAttached extends ConnectorFacts {
  type: 'connector.attached'
  attachmentId: string
  clientAddress: string
  software?: Maybe<string>
}

export interface ConnectorLost extends ConnectorFacts {
  type: 'connector.lost'
  attachmentId: string
  durationMs?: Maybe<number>
  /** Why, when it was not the connector's own wish. */
  code?: Maybe<ErrorCode>
  reason?: Maybe<string>
}

/** A holder of a connector certificate was not let in, or named an attachment that is another connector's. Counted
 *  per code and minute: whoever has lost the right to attach can still knock at any rate. */
export interface ConnectorRefused extends Counted {
  type: 'connector.refused'
  code: ErrorCode
  connectorId?: Maybe<string>
  /** The first few connectors of the minute. */
  connectorIds?: Maybe<readonly string[]>
}

/** Two had a key of one workload: all its certificates were revoked. Written once per lineage. */
export interface WorkloadSuperseded {
  type: 'workload.superseded'
  code: ErrorCode
  /** The lineage. */
  identityId: string
  email: string
  workload: string
  serviceId: string
  label?: Maybe<string>
  /** The former certificate that was to be renewed again. */
  shownSerial: string
  clientAddress: string
}

/** Two processes had the key of one connector: all its certificates were revoked. Written once per connector. */
export interface ConnectorSuperseded extends ConnectorFacts {
  type: 'connector.superseded'
  code: 'CONNECTOR_SUPERSEDED'
  /** What the second process did with the key. */
  how: 'attached' | 'renewed'
  /** Of the second process. Which of the two is the copy, nobody knows. */
  clientAddress: string
  /** Of the one that was attached, if one was. */
  attachedFrom?: Maybe<string>
}

export interface ConnectorRenewed extends ConnectorFacts {
  type: 'connector.renewed'
  /** Of the certificate that was replaced. */
  previousSerial: string
  notAfter: number
  clientAddress: string
}

interface ServiceFacts {
  serviceId: string
  label: string
  /** Who did it: the owner or an admin. */
  identityId: string
  email: string
  clientAddress?: Maybe<string>
}

interface ServiceSettings {
  name: string
  allow: AllowList
  /** Left out of `service.created`: it has the defaults then. */
  ssh?: Maybe<SshSettings>
}

export interface ServiceCreated extends ServiceFacts, ServiceSettings {
  type: 'service.created'
}

export interface ServiceUpdated extends ServiceFacts {
  type: 'service.updated'
  before: ServiceSettings
  after: ServiceSettings
}

export interface ServiceDeleted extends ServiceFacts {
  type: 'service.deleted'
  name: string
}

export interface EnrollTokenCreated extends ServiceFacts {
  type: 'enroll_token.created'
  tokenId: string
  expiresAt: number
}

export interface EnrollTokenCancelled extends ServiceFacts {
  type: 'enroll_token.cancelled'
  count: number
}

/** A server has become a connector. `identityId` is the service's owner, under whose name it stands. */
export interface EnrollTokenUsed extends ServiceFacts {
  type: 'enroll_token.used'
  tokenId: string
  connectorId: string
  /** What the server calls itself. */
  machine: string
  certificateSerial: string
  keyHash: string
  notBefore: number
  notAfter: number
  /** The same key had asked before, and may not have got its answer. */
  isAnsweredAgain: boolean
}

/** With `tokenId` the token was once made here, and the event is written as it is. Without it was a stranger's: those
 *  are counted, as in `FlowRefused`. */
export interface EnrollTokenRefused extends Counted {
  type: 'enroll_token.refused'
  code: ErrorCode
  tokenId?: Maybe<string>
  reason?: Maybe<string>
  machine?: Maybe<string>
  serviceId?: Maybe<string>
  label?: Maybe<string>
  /** The service's owner. */
  identityId?: Maybe<string>
  email?: Maybe<string>
}

/** What one event says that stands for several. */
interface Counted {
  clientAddress?: Maybe<string>
  count?: Maybe<number>
  /** The first few addresses of the minute, without ports. */
  clientAddresses?: Maybe<readonly string[]>
  /** Start of the minute that was counted. */
  since?: Maybe<number>
}

/** A document of a service, or without `serviceId` the defaults of all. */
export interface PolicyUpdated {
  type: 'policy.updated'
  serviceId?: Maybe<string>
  label?: Maybe<string>
  identityId: string
  email: string
  revision: number
  before: Policy
  after: Policy
  clientAddress?: Maybe<string>
}

/** All keys as `SHA256:…`. */
interface SshHostKeysFacts {
  serviceId: string
  label: string
  keys: readonly string[]
  clientAddress: string
}

/** The first ones that a connector has reported: believed. */
export interface SshHostKeysRecorded extends SshHostKeysFacts {
  type: 'ssh.host_keys_recorded'
  connectorId: string
}

/** Others than before: they wait for the owner. */
export interface SshHostKeysChanged extends SshHostKeysFacts {
  type: 'ssh.host_keys_changed'
  connectorId: string
  before: readonly string[]
}

export interface SshHostKeysAccepted extends SshHostKeysFacts {
  type: 'ssh.host_keys_accepted'
  identityId: string
  email: string
  before: readonly string[]
}

interface FlowFacts {
  flowId: string
  identityId: string
  email: string
  serviceId: string
  label: string
  clientAddress: string
  certificateSerial: string
}

/** Written before any byte moves. */
export interface FlowDecided extends FlowFacts {
  type: 'flow.decided'
  decision: 'allow' | 'deny'
  /** What decided; auditors see it, the person does not. */
  rule: string
  ruleKind: RuleKind
  code?: Maybe<ErrorCode>
}

/** Refused before there was anything to decide. Without `identityId` it was a stranger: those are counted per code
 *  and minute instead of written one by one, and `count` says how many one event stands for. */
export interface FlowRefused extends Counted {
  type: 'flow.refused'
  code: ErrorCode
  flowId?: Maybe<string>
  /** Label or host name that was asked for. */
  label?: Maybe<string>
  identityId?: Maybe<string>
  email?: Maybe<string>
  serviceId?: Maybe<string>
  certificateSerial?: Maybe<string>
  /** The first few certificates of the minute: they are good no more, and lead to whose they were. */
  certificateSerials?: Maybe<readonly string[]>
}

export interface FlowClosed extends FlowFacts {
  type: 'flow.closed'
  /** Left out when no connector was found. */
  connectorId?: Maybe<string>
  /** From the client to the service. */
  bytesUp: number
  bytesDown: number
  durationMs: number
  /** Why it ended abnormally; left out after a clean end. */
  code?: Maybe<ErrorCode>
}

/** Connections of strangers at one address were closed because it had too many. Always counted, per limit and minute. */
export interface AddressLimited extends Counted {
  type: 'address.limited'
  code: ErrorCode
  limit: 'pending_handshakes' | 'failed_handshakes' | 'http_connections'
}

/** The first record of a chain. */
export interface AuditChainStarted {
  type: 'audit.chain_started'
  chain: string
  /** What stands in the log without a chain, from before there were any. */
  before: { records: number; lastSeq: number }
}

/** Everything before this record, signed. */
export interface AuditCheckpoint {
  type: 'audit.checkpoint'
  checkpoint: Checkpoint
}

/** Somebody has looked at this log. Written at once for the first time, and then every ten minutes. */
export interface AuditRead {
  type: 'audit.read'
  identityId: string
  email: string
  sessionId: string
  clientAddress: string
  how: 'list' | 'export'
  /** What was asked for the first time. */
  query: Readonly<Record<string, string>>
  /** How many times since `since`. */
  count: number
  since: number
}

/** Records are about to be deleted because they are older than `audit.retention` says. */
export interface AuditPruned {
  type: 'audit.pruned'
  /** Left out: of the records without a chain. */
  chain?: Maybe<string>
  /** Everything up to this position, or number where there is no chain; what follows is a checkpoint. */
  through: number
  records: number
}
