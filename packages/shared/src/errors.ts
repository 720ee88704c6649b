/** The one table of everything that can go wrong with a name: what the edge answers over HTTP, how the
 *  command line exits, whether a stranger may see it, and what to do next. `docs/errors.md` explains each
 *  code in words; a test keeps the two equal. */

interface ErrorKind {
  /** HTTP status of an API answer. */
  readonly http: number
  /** Exit code of a command: 1 failed · 2 usage or config · 4 sign-in needed · 5 denied · 6 unreachable. */
  readonly exit: 1 | 2 | 4 | 5 | 6 | 130
  /** Only public codes leave the edge; the rest become `INTERNAL` with a request id. */
  readonly public: boolean
  /** The next step, used when the place that throws knows no better one. */
  readonly hint: string
}

const kind = (http: number, exit: ErrorKind['exit'], hint: string): ErrorKind => ({
  http,
  exit,
  public: true,
  hint,
})
const hidden = (http: number, exit: ErrorKind['exit'], hint: string): ErrorKind => ({
  http,
  exit,
  public: false,
  hint,
})

export const ERRORS = {
  // what was asked for cannot be understood
  USAGE_INVALID: kind(400, 2, 'run the command with --help to see its options and examples'),
  CONFIG_INVALID: hidden(500, 2, 'correct the file and try: postern-edge config check --config FILE'),
  REQUEST_INVALID: kind(400, 2, 'check that postern and postern-edge have the same version: postern doctor'),
  REQUEST_TOO_LARGE: kind(413, 2, 'send less in one request'),
  ADDRESS_INVALID: kind(400, 2, 'write an address as name@domain, for example contractor@example.com'),
  DOMAIN_INVALID: kind(400, 2, 'write a domain as in mycorp.com, without @ and without *'),
  LABEL_INVALID: kind(400, 2, 'use 3 to 63 lower-case letters, digits and inner hyphens'),
  SSH_KEY_INVALID: kind(400, 2, 'use an ed25519, ecdsa (nistp256) or rsa key of 2048 bits or more'),
  PRINCIPAL_INVALID: kind(400, 2, 'use up to 64 letters, digits and . _ : / - without spaces and commas'),
  WORKLOAD_INVALID: kind(400, 2, 'use up to 64 letters, digits and inner . _ -, as in carbon-relay-3'),
  DURATION_INVALID: kind(400, 2, 'write a number and a unit: 30s, 5m, 12h or 7d'),
  ALLOW_LIST_EMPTY: kind(
    400,
    2,
    'name who may enter: --allowed-email-domains, --allowed-email-addresses or --allow-any-authenticated',
  ),
  ALLOW_LIST_DIFFERS: kind(
    409,
    2,
    'leave the lists out to keep what the service has, or add --replace-allow-list to overwrite it',
  ),
  POLICY_INVALID: kind(400, 2, 'correct the named places; postern policy get shows a document that is valid'),
  LABEL_TAKEN: kind(409, 1, 'choose another label, or leave --label out to get a generated one'),
  NAME_TAKEN: kind(409, 1, 'choose another name'),
  SERVICE_UNKNOWN: kind(404, 1, 'list your services: postern service list'),
  SESSION_UNKNOWN: kind(404, 1, 'list them: postern session list'),
  CONNECTOR_UNKNOWN: kind(404, 1, 'look for its id in the audit log: postern audit list'),
  IDENTITY_UNKNOWN: kind(404, 1, 'check the address: postern audit list shows how it is written'),
  CERTIFICATE_UNKNOWN: kind(404, 1, 'look for the serial in the audit log: postern audit list'),
  REVISION_CONFLICT: kind(409, 1, 'somebody else changed it at the same time: look at it and try again'),
  FLOW_UNKNOWN: kind(
    404,
    1,
    'copy the id from the message on stderr; an auditor can look in: postern audit list',
  ),
  NOT_FOUND: kind(404, 1, 'check that postern and postern-edge have the same version: postern doctor'),

  // who are you
  EDGE_UNKNOWN: kind(400, 4, 'sign in to the edge once: postern login --edge https://HOST'),
  SIGN_IN_REQUIRED: kind(401, 4, 'sign in: postern login --edge https://HOST'),
  SESSION_ENDED: kind(401, 4, 'sign in again: postern login --edge https://HOST'),
  LOGIN_FAILED: kind(400, 4, 'try again: postern login --edge https://HOST'),
  LOGIN_REFUSED: kind(403, 5, 'sign in with an account of the company, or ask an administrator'),
  DPOP_INVALID: kind(401, 4, 'sign in again: postern login --edge https://HOST'),
  CLOCK_OFF: kind(400, 1, "set this machine's clock (timedatectl set-ntp true) and try again"),

  // you may not
  IDENTITY_LOCKED: kind(403, 5, 'ask an administrator of the edge'),
  ACCESS_DENIED: kind(403, 5, 'ask the owner of the service to admit you'),
  OUTSIDE_HOURS: kind(403, 5, 'try again when the service is open to you, or ask its owner'),
  NETWORK_NOT_ALLOWED: kind(403, 5, 'connect from a network that the service admits, or ask its owner'),
  STRONGER_LOGIN_REQUIRED: kind(
    403,
    5,
    'sign in again with a second factor: postern login --edge https://HOST',
  ),
  LOGIN_TOO_OLD: kind(403, 4, 'sign in again: postern login --edge https://HOST'),
  SESSION_KIND_NOT_ALLOWED: kind(403, 5, 'sign in with a browser: postern login --edge https://HOST'),
  TOO_MANY_FLOWS: kind(429, 5, 'close a connection to the service and try again'),
  FLOW_TOO_LONG: kind(403, 5, 'connect again: the service limits how long one connection may last'),
  OPERATOR_REQUIRED: kind(403, 5, 'ask an administrator of the edge to add you to `operators`'),
  AUDITOR_REQUIRED: kind(403, 5, 'ask an administrator of the edge to add you to `auditors`'),
  ADMIN_REQUIRED: kind(403, 5, 'ask an administrator of the edge'),
  CERTIFICATE_REFUSED: kind(403, 5, 'run the command again: it gets a new certificate'),
  CERTIFICATE_REVOKED: kind(403, 5, 'sign in again: postern login --edge https://HOST'),
  CERTIFICATE_EXPIRED: kind(403, 5, 'run the command again: it gets a new certificate'),
  TRUSTED_CRL_EXPIRED: kind(
    403,
    5,
    "ask the owner of the service to apply the CA's newest list of revoked certificates",
  ),
  CERTIFICATE_NOT_RENEWABLE: kind(
    403,
    5,
    'ask the owner of the service for a new one: postern certificate issue',
  ),
  CERTIFICATE_SUPERSEDED: kind(
    403,
    5,
    'its key is in two places, so every certificate of this lineage was revoked: find the copy, then ask the owner of the service for a new one: postern certificate issue',
  ),
  CERTIFICATE_WRONG_SERVICE: kind(403, 5, 'use the certificate that was issued for this service'),
  ENROLL_TOKEN_INVALID: kind(403, 5, 'make a new one: postern service enroll-token LABEL'),
  SSH_CA_UNKNOWN: kind(
    404,
    5,
    'set the server up again: postern sshd setup --undo, then postern sshd setup --host HOST --user USER',
  ),
  HOST_KEY_CHANGED: kind(
    409,
    5,
    'if the server was set up anew, its owner accepts the keys: postern service accept-host-keys LABEL',
  ),
  FLOW_REVOKED: kind(403, 5, 'ask the owner of the service, or sign in again'),

  // it is not there
  EDGE_UNREACHABLE: kind(503, 6, 'check the network and that the edge is running'),
  EDGE_UNTRUSTED: kind(
    502,
    6,
    'if the edge has its own CA, name it: postern login --edge https://HOST --ca-file ca.pem',
  ),
  EDGE_STOPPING: kind(503, 6, 'try again in a moment'),
  SERVICE_OFFLINE: kind(503, 6, 'start its connector: postern connect --name NAME --port PORT'),
  SERVICE_REFUSED: kind(502, 6, 'check that the service is running on the machine of the connector'),
  SERVICE_UNREACHABLE: kind(504, 6, 'check the host and port that the connector was started with'),
  FLOW_CUT: kind(502, 6, 'bytes may be missing: repeat the transfer'),
  PROTOCOL_INVALID: kind(400, 6, 'check that postern and postern-edge have the same version: postern doctor'),

  // what stands between this machine and the edge
  PROXY_UNREACHABLE: kind(
    502,
    6,
    'check the address of the proxy: --proxy, POSTERN_PROXY, HTTPS_PROXY or ALL_PROXY; NO_PROXY leaves it out',
  ),
  PROXY_LOGIN_REQUIRED: kind(
    407,
    6,
    'put USER:PASSWORD into a file of mode 600 and name it: --proxy-credentials-file FILE',
  ),
  PROXY_REFUSED: kind(502, 6, 'ask whoever runs the proxy to let this machine connect to the edge'),
  PROXY_INVALID: kind(
    502,
    6,
    'check that a proxy of this kind listens there: http://HOST:PORT, https://HOST:PORT or socks5://HOST:PORT',
  ),
  PROXY_UNTRUSTED: kind(502, 6, 'if the proxy has a CA of its own, name it: --proxy-ca-file FILE'),

  TRANSPORT_REFUSED: kind(
    502,
    6,
    'let what stands in front of the edge pass WebSockets to it, or leave out: --transport ws',
  ),

  // the connector's own
  CONNECTOR_REFUSED: kind(403, 5, 'start the connector again: postern connect …'),
  CONNECTOR_SUPERSEDED: kind(
    403,
    5,
    'its key is in two places, so every holder was ended: find the copy and remove its state folder, then start the connector again as a signed-in operator',
  ),
  CONNECTOR_REPLACED: kind(
    409,
    5,
    'the connector renews its certificate and comes back by itself; if it is ended then, look for a copy of its state folder',
  ),

  // a connector's own
  SERVICES_INVALID: kind(400, 2, 'correct the named lines; docs/connector.md shows what may stand there'),

  // a local listener's own
  LISTENERS_INVALID: kind(400, 2, 'correct the named lines; postern client listen --help shows an example'),
  LISTEN_FAILED: kind(500, 1, 'choose another port, or 0 for any free one'),
  LOCAL_USER_REFUSED: kind(
    403,
    5,
    'start postern client listen as that user, too; --unsafe-any-local-user serves everybody on the machine',
  ),
  LOCAL_USER_UNKNOWN: kind(
    403,
    5,
    'let it wait for the other end (nc -N), or use --local unix:PATH, which needs no look-up; --unsafe-any-local-user serves everybody on the machine',
  ),

  // our side
  RATE_LIMITED: kind(429, 6, 'wait a minute and try again'),
  STORE_LOST: kind(503, 6, 'try again in a moment; the edge recovers by itself once its store is back'),
  RECORD_FAILED: kind(
    503,
    6,
    'the edge cannot write its audit log, and does not relay what it cannot record',
  ),
  STATE_INVALID: kind(500, 1, 'move the named file away and sign in again'),
  TLS_FILES_INVALID: hidden(500, 1, 'write a certificate with its key, for the names of the edge'),
  ACME_UNREACHABLE: hidden(503, 1, 'look at the network, and at the CA'),
  ACME_RATE_LIMITED: hidden(429, 1, 'wait; try settings with the staging server of the CA'),
  ACME_REFUSED: hidden(502, 1, 'correct what the CA names'),
  ACME_CHALLENGE_FAILED: hidden(502, 1, 'let the name lead to this edge from everywhere'),
  ACME_HOOK_FAILED: hidden(500, 1, 'run tls.acme.dns_hook by hand'),
  ACME_PROTOCOL_INVALID: hidden(502, 1, 'check tls.acme.directory'),
  SSH_FILE_FOREIGN: kind(
    409,
    1,
    'move the file away, or keep it and use: postern client ssh-keysign --agent',
  ),
  SSH_AGENT_FAILED: kind(502, 1, 'start one: eval "$(ssh-agent)", or leave --agent out'),
  SSH_CONFIG_INVALID: kind(409, 1, 'correct the file and run the command again'),
  BUSY: kind(503, 1, 'another postern process holds the lock: wait for it or end it'),
  SSHD_SETUP_FAILED: kind(500, 1, 'run it as root on the machine of the service, and look at its message'),
  SERVICE_SETUP_FAILED: kind(
    500,
    1,
    'look at what the service manager says: journalctl --user; --dry-run shows what would be done',
  ),
  KRL_INVALID: kind(
    502,
    1,
    'the last good list stays; look at the edge, and try again: postern sshd refresh',
  ),
  CA_ROTATING: hidden(409, 1, 'wait for its end; see it with: postern-edge ca show --config FILE'),
  CA_KEY_LOCKED: hidden(
    500,
    2,
    'name the right passphrase file: ca.key_passphrase_file in the configuration',
  ),
  EDGE_KEYS_DIFFER: hidden(500, 1, 'copy ca and login-keys.json from the data_dir of the edge that runs'),
  CRL_INVALID: hidden(500, 1, 'fetch it anew from the edge: https://HOST/v1/crl/client.crl'),
  CRL_EXPIRED: hidden(
    500,
    1,
    'fetch it more often than ca.crl_lifetime, from https://HOST/v1/crl/client.crl',
  ),
  FLOW_IDENTITY_INVALID: kind(
    403,
    5,
    'treat the connection as nobody’s; docs/protocol.md says how the identity of a flow is checked',
  ),
  AUDIT_BROKEN: kind(
    500,
    1,
    'keep this file and the store as they are; docs/audit.md says what each finding means',
  ),
  CHECK_FAILED: kind(500, 1, 'do what stands below the lines that begin with fail'),
  INTERRUPTED: kind(499, 130, 'the command was interrupted'),
  INTERNAL: kind(500, 1, 'tell the administrator of the edge the request id'),
} as const satisfies Record<string, ErrorKind>

export type ErrorCode = keyof typeof ERRORS

export interface ErrorOptions {
  /** The next command or step; the table's own hint is used when left out. */
  hint?: string
  /** What was caught. Goes to the log, never to the person. */
  cause?: unknown
  /** Machine-readable facts for `--json` and the log. Never secrets. */
  details?: Record<string, unknown>
}

/** Every failure with a name. Decide by `code`, never by `message`. */
export class PosternError extends Error {
  override readonly name = 'PosternError'
  readonly code: ErrorCode
  readonly hint: string
  readonly details: Record<string, unknown> | undefined

  /** @param message what happened and to what, lower case, no final period: "service db is offline" */
  constructor(code: ErrorCode, message: string, options: ErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause })
    this.code = code
    this.hint = options.hint ?? ERRORS[code].hint
    this.details = options.details
  }

  get exitCode(): number {
    return ERRORS[this.code].exit
  }
}

export function isErrorCode(value: unknown): value is ErrorCode {
  return typeof value === 'string' && Object.hasOwn(ERRORS, value)
}

/** Wraps what is not ours, once, where it enters. Ours passes through. */
export function toPosternError(error: unknown, code: ErrorCode, message: string): PosternError {
  return error instanceof PosternError ? error : new PosternError(code, message, { cause: error })
}

/** The shape in which an error travels: error frames and API answers. */
export interface PublicError {
  code: ErrorCode
  message: string
  hint: string
}

/** What may leave the edge: public codes as they are, everything else as `INTERNAL` with the id to ask for.
 *  @param requestId names the request or flow in the log */
export function toPublicError(error: unknown, requestId: string): PublicError {
  if (error instanceof PosternError && ERRORS[error.code].public) {
    return { code: error.code, message: error.message, hint: error.hint }
  }
  return {
    code: 'INTERNAL',
    message: `the edge failed, request id ${requestId}`,
    hint: ERRORS.INTERNAL.hint,
  }
}

/** Reads an error that came over the wire. A code this version does not know stays readable as `fallback`. */
export function fromPublicError(
  body: { code: string; message: string; hint?: string | undefined },
  fallback: ErrorCode,
): PosternError {
  const options = body.hint ? { hint: body.hint } : {}
  if (isErrorCode(body.code)) return new PosternError(body.code, body.message, options)
  return new PosternError(fallback, `${body.message} (${body.code})`, options)
}
