import type { X509Certificate } from 'node:crypto'
import type { Socket } from 'node:net'
import type { HttpBindings } from '@hono/node-server'
import type { ErrorCode } from '@postern/shared/errors'
import type { Logger } from '@postern/shared/logger'
import type { Handler, MiddlewareHandler } from 'hono'
import type { Kysely } from 'kysely'
import type { AuditReads } from '../audit/reads.ts'
import type { AuditLog } from '../audit/record.ts'
import type { EdgeRoot } from '../ca/edge-ca.ts'
import type { FlowIdentityKeys } from '../ca/flow-identity-keys.ts'
import type { IssuingThread } from '../ca/issuing-thread.ts'
import type { LiveAuthorities } from '../ca/live-authorities.ts'
import type { LiveSshAuthorities } from '../ca/live-ssh-authorities.ts'
import type { EdgeConfig } from '../config/config.ts'
import type { ConnectorIssuer } from '../connectors/certificates.ts'
import type { ConnectorRegistry } from '../connectors/registry.ts'
import type { Fleet } from '../fleet/fleet.ts'
import type { Enforcement } from '../flow/enforce.ts'
import type { LiveFlows } from '../flow/live-flows.ts'
import type { Rate } from '../limits/rate.ts'
import type { Strangers } from '../limits/strangers.ts'
import type { Login } from '../login/login.ts'
import type { Verified } from '../login/verify-request.ts'
import type { Roles } from '../policy/roles.ts'
import type { Database } from '../store/schema.ts'
import type { WorkloadIssuer } from '../workloads/certificates.ts'

/** What the API's handlers are built from; each takes the parts it uses. */
export interface ApiParts {
  config: EdgeConfig
  origin: () => string
  version: string
  db: Kysely<Database>
  clock: () => number
  log: Logger
  audit: AuditLog
  auditReads: AuditReads
  login: Login
  roles: Roles
  issuing: IssuingThread
  authorities: LiveAuthorities
  /** Whom clients may believe; nobody where the edge's certificate is of somebody else's CA. */
  edgeRoots: () => readonly EdgeRoot[]
  sshAuthorities: LiveSshAuthorities
  /** Its public half is shown. */
  identityKeys: FlowIdentityKeys
  connectors: ConnectorRegistry
  connectorIssuer: ConnectorIssuer
  workloadIssuer: WorkloadIssuer
  /** `https://mtls.edge.example.com`, where certificates renew themselves. */
  mtlsOrigin: () => string
  live: LiveFlows
  enforcement: Enforcement
  /** The other edges on this store. */
  fleet: Fleet
  certificateRate: Rate
  strangers: Pick<Strangers, 'judge'>
  /** Told of every connection on which somebody has shown who they are. */
  onProven: (socket: Socket) => void
  isReady: () => Promise<boolean>
  countRefused: (code: ErrorCode) => void
}

export interface ApiVariables {
  requestId: string
  /** Set by `requireSession`. */
  caller: Verified
  /** Set once the audit log knows of the refusal. */
  isRefusalRecorded?: boolean
}

export interface ApiEnv {
  /** `peer`: the certificate that was shown, in the room that asks for one. */
  Bindings: HttpBindings & { peer?: X509Certificate | undefined }
  Variables: ApiVariables
}

export type ApiHandler = Handler<ApiEnv>
export type ApiMiddleware = MiddlewareHandler<ApiEnv>
