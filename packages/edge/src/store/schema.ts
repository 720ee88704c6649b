import type { Generated } from 'kysely'

/** The tables, as Kysely sees them. Portable between SQLite and PostgreSQL: text, integer, bigint. Times are
 *  epoch milliseconds, booleans 0 or 1, JSON is text, serials and hashes lower-case hex. `null` means "not yet". */

export interface Database {
  identities: IdentitiesTable
  sessions: SessionsTable
  oidc_records: OidcRecordsTable
  upstream_logins: UpstreamLoginsTable
  replay_guards: ReplayGuardsTable
  services: ServicesTable
  labels: LabelsTable
  certificates: CertificatesTable
  server_certificates: ServerCertificatesTable
  enroll_tokens: EnrollTokensTable
  policies: PoliciesTable
  policy_history: PoliciesTable
  ssh_certificates: SshCertificatesTable
  ssh_host_keys: SshHostKeysTable
  ssh_revoked_key_ids: SshRevokedKeyIdsTable
  ssh_krl: SshKrlTable
  locks: LocksTable
  edge_keys: EdgeKeysTable
  audit_events: AuditEventsTable
  audit_chains: AuditChainsTable
  audit_sinks: AuditSinksTable
  acme_proofs: AcmeProofsTable
  leases: LeasesTable
}

/** One person at one provider. Unique (issuer, subject); email and groups as of the last login. */
export interface IdentitiesTable {
  id: string
  issuer: string
  subject: string
  email: string
  groups: string
  created_at: number
  last_login_at: number
}

/** One login. `grant_id` is oidc-provider's grant: every token of the session leads to it. Unique. */
export interface SessionsTable {
  id: string
  identity_id: string
  grant_id: string
  kind: 'browser' | 'device'
  client_address: string
  created_at: number
  expires_at: number
  ended_at: number | null
  end_reason: string | null
  /** JSON list. */
  amr: Generated<string>
  acr: string | null
  auth_time: number | null
}

/** oidc-provider's adapter rows. `id_hash` is the SHA-256 of the id: for tokens and codes the id is the secret,
 *  and the store keeps no secrets. Payloads carry other secrets too (an interaction holds the session's cookie),
 *  so each one is sealed under a key that only the id gives: see `sealed.ts`. */
export interface OidcRecordsTable {
  model: string
  id_hash: string
  payload: string
  grant_id: string | null
  user_code_hash: string | null
  uid_hash: string | null
  /** The id, sealed under the user code and under the uid: these two also have to lead to the payload. */
  id_by_user_code: string | null
  id_by_uid: string | null
  expires_at: number | null
  consumed_at: number | null
}

/** A login on its way through the upstream provider. Found by the hash of `state`, usable only with the cookie
 *  whose hash is stored beside it; afterwards the result waits under the cookie's hash for the person's POST.
 *  Interaction, verifier and nonce are sealed under the cookie. */
export interface UpstreamLoginsTable {
  state_hash: string
  cookie_hash: string
  /** JSON { interactionUid, codeVerifier, nonce }, sealed. */
  secrets: string
  /** When `state` came back: it works once. */
  taken_at: number | null
  /** JSON of the verified account once the provider has answered. */
  account: string | null
  created_at: number
  expires_at: number
}

/** Things that may be used once: DPoP `jti`, renewal `jti`. Unique key. */
export interface ReplayGuardsTable {
  key_hash: string
  expires_at: number
}

export interface ServicesTable {
  id: string
  label: string
  name: string
  type: 'tls'
  owner_id: string
  /** JSON AllowList. */
  allow: string
  revision: number
  /** JSON SshSettings; null: the defaults. */
  ssh: string | null
  created_at: number
  updated_at: number
  deleted_at: number | null
}

/** Who holds a label, for ever: a label of a deleted service goes back to its owner only. */
export interface LabelsTable {
  label: string
  owner_id: string
  service_id: string
}

/** Every certificate ever issued to a client, connector or workload. An unknown serial is refused. */
export interface CertificatesTable {
  serial: string
  kind: 'client' | 'connector' | 'workload'
  /** SHA-256 of the SubjectPublicKeyInfo. */
  key_hash: string
  identity_id: string
  /** Client certificates: the session they came from. Connectors and workloads live on their own: null. */
  session_id: string | null
  service_id: string
  /** Connectors: id of the process, equal for the certificates of one lineage. */
  connector_id: string | null
  machine: string | null
  not_before: number
  not_after: number
  issued_at: number
  /** Serial of the certificate that renewed this one. */
  renewed_by: string | null
  revoked_at: number | null
  revoked_reason: string | null
  /** Workloads: equal for the certificates of one lineage, its name, and when the last of them ends. */
  workload_id: Generated<string | null>
  workload: Generated<string | null>
  renewable_until: Generated<number | null>
}

/** Every certificate ever issued to a private service. */
export interface ServerCertificatesTable {
  serial: string
  key_hash: string
  /** JSON list. */
  names: string
  identity_id: string
  not_before: number
  not_after: number
  issued_at: number
  revoked_at: number | null
  revoked_reason: string | null
}

/** Tokens with which a server becomes a connector of one service, once. */
export interface EnrollTokensTable {
  /** SHA-256 of the token: 256 random bits need no salt. */
  token_hash: string
  id: string
  service_id: string
  /** The owner of the service or an admin. */
  created_by: string
  /** Id of the process that it makes. */
  connector_id: string
  created_at: number
  expires_at: number
  used_at: number | null
  /** Of the key that used it: that one may ask again, for its answer may have been lost. */
  key_hash: string | null
}

/** A policy document: of a service (its id), or `defaults`. The history has every revision, this one too. */
export interface PoliciesTable {
  scope: string
  /** JSON Policy. */
  policy: string
  revision: number
  changed_at: number
  /** Identity id. */
  changed_by: string
  /** 1: it trusts CAs of others. */
  trusts_cas: Generated<number>
}

/** Every ssh certificate ever issued. */
export interface SshCertificatesTable {
  /** 64 bits in 16 digits. */
  serial: string
  kind: 'user' | 'host'
  fingerprint: string
  key_id: string
  /** JSON list. */
  principals: string
  /** Hosts: the owner of the service. */
  identity_id: string
  /** Users only. */
  session_id: string | null
  service_id: string
  /** Where it was asked for: a policy may look at that again. */
  client_address: string
  /** Hosts only. */
  connector_id: string | null
  not_before: number
  not_after: number
  issued_at: number
  revoked_at: number | null
  revoked_reason: string | null
}

/** Host keys of a service's target: JSON lists of lines. */
export interface SshHostKeysTable {
  service_id: string
  keys: string
  revision: number
  /** Seen, and not accepted yet. */
  pending: string | null
  updated_at: number
}

/** Key ids that servers must not believe for a while; empty unless the configuration asks for them. */
export interface SshRevokedKeyIdsTable {
  key_id: string
  until: number
}

/** One row: the version of the list of revoked certificates. */
export interface SshKrlTable {
  id: string
  version: number
}

/** People who are refused everywhere: a row for the address, and one for each person who had it when it was locked. */
export interface LocksTable {
  /** The address, or an identity id. */
  key: string
  email: string
  /** null: until somebody ends it. */
  until: number | null
  reason: string
  locked_at: number
  /** Identity id. */
  locked_by: string
}

/** An edge that runs on this store, and the fingerprints of its keys. */
export interface EdgeKeysTable {
  edge: string
  place: string
  /** JSON. */
  keys: string
  /** By the database's clock. */
  seen_at: number
}

export interface AuditEventsTable {
  /** Given by the database, ascending. */
  seq: Generated<number>
  at: number
  type: string
  flow_id: string | null
  identity_id: string | null
  service_id: string | null
  /** JSON of the whole typed event. */
  event: string
  /** Of a refusal. */
  code: string | null
  /** null: from before there were chains, as the other three. */
  chain: string | null
  position: number | null
  /** Hash of the record before, and its own. */
  previous: string | null
  hash: string | null
}

/** Where each edge's chain has come to. */
export interface AuditChainsTable {
  id: string
  /** Of the last record. */
  position: number
  hash: string
  /** Of the last record that is a checkpoint, and when it was signed. */
  checkpoint_position: number
  checkpoint_at: number
}

/** How far records of a chain have been handed to a place outside. */
export interface AuditSinksTable {
  /** SHA-256 of what the configuration says about it. */
  id: string
  chain: string
  /** Delivered, with all before it. */
  position: number
}

/** Proofs that a CA looks for now, at whichever edge of the store. */
export interface AcmeProofsTable {
  /** The name that is proven: one order at a time. */
  name: string
  token: string
  /** The key authorization under a secret that the edges have and the database does not: nobody else can have them
   *  vouch for a foreign account. */
  sealed: string
  expires_at: number
}

/** What one edge at a time does. */
export interface LeasesTable {
  name: string
  /** The edge: one for each start. */
  holder: string
  until: number
}
