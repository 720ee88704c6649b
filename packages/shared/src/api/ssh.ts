import * as v from 'valibot'
import { timestamp } from './fields.ts'

/** Certificates for ssh, the record of host keys, and what takes them back. */

/** One line of OpenSSH, `ssh-ed25519 AAAA…`, without a comment. Read with `parseSshPublicKey`: ed25519, ecdsa on
 *  nistp256, or rsa of 2048 bits and more. */
export const sshPublicKeyLine = v.pipe(
  v.string(),
  v.maxLength(4_096),
  v.regex(/^[a-z0-9@.-]+ [A-Za-z0-9+/]+={0,2}$/, 'is not one line of OpenSSH without a comment'),
)

/** `POST /v1/certificates/ssh`: a user certificate for one service. Needs a session whose identity the service
 *  admits now. */
export const SshCertificateRequest = v.strictObject({
  /** Label or full host of the service. */
  host: v.pipe(v.string(), v.maxLength(253)),
  publicKey: sshPublicKeyLine,
})

export const SshCertificateResponse = v.object({
  /** One line of OpenSSH. */
  certificate: v.string(),
  /** Unsigned 64 bit, decimal, as `ssh-keygen -L` prints it. */
  serial: v.pipe(v.string(), v.regex(/^[0-9]{1,20}$/)),
  /** The email address. */
  keyId: v.string(),
  principals: v.array(v.string()),
  /** `SHA256:…` of the key that was certified. */
  fingerprint: v.string(),
  notBefore: timestamp,
  notAfter: timestamp,
  serviceId: v.string(),
})

/** What a certificate lets its holder do on the server. A terminal always. */
export const SshPermissions = v.object({
  portForwarding: v.boolean(),
  agentForwarding: v.boolean(),
  x11Forwarding: v.boolean(),
  userRc: v.boolean(),
})

/** How a service's user certificates look. */
export const SshSettings = v.object({
  /** Named in every certificate, besides the email address and `<label>.<domain>`. */
  principals: v.array(v.string()),
  /** Whether `postern_ssh_signed` is named too; the edge's configuration may switch it off for all. */
  sharedPrincipal: v.boolean(),
  /** People of this one domain get the part before the @ as a principal, unless it is a name like `root`. */
  localPartDomain: v.optional(v.string()),
  /** The person's groups become principals behind this prefix; none without it. */
  groupPrefix: v.optional(v.string()),
  permit: SshPermissions,
  forceCommand: v.optional(v.string()),
  /** Addresses and networks from which sshd accepts the certificate. Through Postern it sees the connector's. */
  sourceAddresses: v.optional(v.array(v.string())),
  /** Validity ahead; the edge's `ssh.ttl` when left out, and never longer than that. */
  ttlMs: v.optional(v.pipe(v.number(), v.integer())),
})

/** What the original of this idea hands out. */
export const DEFAULT_SSH_SETTINGS: SshSettings = {
  principals: [],
  sharedPrincipal: true,
  permit: { portForwarding: true, agentForwarding: true, x11Forwarding: true, userRc: true },
}

const shortText = v.pipe(v.string(), v.minLength(1), v.maxLength(255))

/** Part of a `PATCH`: members left out stay, null removes. The edge reads names and addresses again. */
export const SshSettingsChange = v.strictObject({
  principals: v.optional(v.pipe(v.array(shortText), v.maxLength(32))),
  sharedPrincipal: v.optional(v.boolean()),
  localPartDomain: v.optional(v.nullable(shortText)),
  groupPrefix: v.optional(v.nullable(v.pipe(v.string(), v.minLength(1), v.maxLength(32)))),
  permit: v.optional(
    v.strictObject({
      portForwarding: v.optional(v.boolean()),
      agentForwarding: v.optional(v.boolean()),
      x11Forwarding: v.optional(v.boolean()),
      userRc: v.optional(v.boolean()),
    }),
  ),
  forceCommand: v.optional(v.nullable(v.pipe(v.string(), v.minLength(1), v.maxLength(1_024)))),
  sourceAddresses: v.optional(v.nullable(v.pipe(v.array(shortText), v.minLength(1), v.maxLength(64)))),
  ttlMs: v.optional(v.nullable(v.pipe(v.number(), v.integer(), v.minValue(1_000)))),
})

/** A call of a connector: a compact JWS (RFC 7515), signed ES256 by the key of its current certificate, with that
 *  public key as `jwk` and the kind of the call as `typ` in its protected header. */
export const ConnectorCallRequest = v.strictObject({ jws: v.pipe(v.string(), v.maxLength(65_536)) })

/** Claims of both calls about host keys. */
export const SshHostKeysClaims = v.object({
  /** The edge's origin, `https://edge.example.com:8443`. */
  aud: v.string(),
  /** Seconds since 1970; at most 60 s away from the edge's clock. */
  iat: v.number(),
  jti: v.pipe(v.string(), v.minLength(16), v.maxLength(128)),
  /** Serial of the connector's certificate, lower-case hex. */
  serial: v.pipe(v.string(), v.maxLength(64)),
  hostKeys: v.pipe(v.array(sshPublicKeyLine), v.minLength(1), v.maxLength(8)),
})

/** `POST /v1/connectors/ssh-host-certificates`: host certificates that name `<label>.<domain>` of the connector's
 *  service, one for each key, in their order. */
export const SSH_HOST_JWS_TYPE = 'postern-ssh-host+jwt'
export const SshHostCertificatesResponse = v.object({
  /** Lines of OpenSSH. */
  certificates: v.array(v.string()),
  notAfter: timestamp,
})

/** `POST /v1/connectors/ssh-host-keys`: the keys that the connector's target shows. The first record is accepted;
 *  another one is HOST_KEY_CHANGED and waits for the owner. */
export const SSH_HOST_KEYS_JWS_TYPE = 'postern-ssh-host-keys+jwt'

/** `GET /v1/services/:ref/ssh-host-keys` for whom the service admits; `POST …/ssh-host-keys/accept` for its owner.
 *  Also the answer to a connector whose keys are the recorded ones. */
export const SshHostKeysResponse = v.object({
  /** The line of the host CA that signs. */
  hostCa: v.string(),
  /** Lines of all that are believed, this one among them: while one takes over from the other there are two. */
  hostCas: v.optional(v.pipe(v.array(v.string()), v.maxLength(8)), []),
  /** Keys accepted for this service; empty when its connector has reported none. */
  keys: v.array(v.string()),
  /** The same, signed by the host CA: see `verifyHostKeyRecord`. */
  record: v.string(),
  /** The target shows other keys now, and nobody has accepted them yet. */
  pending: v.boolean(),
})

/** What a record says. */
export const SshHostKeyRecord = v.object({
  /** `<label>.<domain>` */
  host: v.string(),
  serviceId: v.string(),
  keys: v.pipe(v.array(sshPublicKeyLine), v.maxLength(8)),
  /** Grows by one with every accepted change; 0 when there is none. */
  revision: v.number(),
  /** Seconds since 1970. */
  iat: v.number(),
})

/** `GET /v1/ssh/krl`, without a session: binary, OpenSSH's PROTOCOL.krl. `?ca=SHA256:…`, once for each CA that the server
 *  believes, asks for what is revoked of these: a list that names another one would be refused as a whole. */
export const KRL_MEDIA_TYPE = 'application/octet-stream'

/** `GET /v1/ssh/cas`, without a session: the list of CAs of each kind, once for each CA in it, signed by that one. See
 *  `verifySshAuthorityList`. */
const signedLists = v.pipe(v.array(v.pipe(v.string(), v.maxLength(65_536))), v.maxLength(8))
export const SshAuthoritiesResponse = v.object({ user: signedLists, host: signedLists })

export type SshCertificateRequest = v.InferInput<typeof SshCertificateRequest>
export type SshCertificateResponse = v.InferOutput<typeof SshCertificateResponse>
export type SshPermissions = v.InferOutput<typeof SshPermissions>
export type SshSettings = v.InferOutput<typeof SshSettings>
export type SshSettingsChange = v.InferOutput<typeof SshSettingsChange>
export type SshHostKeysClaims = v.InferOutput<typeof SshHostKeysClaims>
export type SshHostCertificatesResponse = v.InferOutput<typeof SshHostCertificatesResponse>
export type SshHostKeysResponse = v.InferOutput<typeof SshHostKeysResponse>
export type SshAuthoritiesResponse = v.InferOutput<typeof SshAuthoritiesResponse>
export type SshHostKeyRecord = v.InferOutput<typeof SshHostKeyRecord>
