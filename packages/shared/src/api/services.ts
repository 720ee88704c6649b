import * as v from 'valibot'
import { allowList, allowListInput, serviceName, timestamp } from './fields.ts'
import { DEFAULT_SSH_SETTINGS, SshSettings, SshSettingsChange } from './ssh.ts'

/** `POST /v1/services`: claims the service `name` of the caller, or answers the one they already have.
 *  Needs a session of an operator. */
export const ClaimServiceRequest = v.strictObject({
  name: serviceName,
  type: v.literal('tls'),
  /** Wanted label; generated when left out. Ignored for a service that exists. */
  label: v.optional(v.pipe(v.string(), v.maxLength(63))),
  /** Needed to create. For a service that exists: ALLOW_LIST_DIFFERS unless equal or `replaceAllowList`. */
  allow: v.optional(allowListInput),
  replaceAllowList: v.optional(v.boolean(), false),
})

export const Service = v.object({
  id: v.string(),
  label: v.string(),
  /** `<label>.<domain>` */
  host: v.string(),
  name: v.string(),
  /** `tls`; newer edges may know others, and a list is not to fail for one of them. */
  type: v.string(),
  owner: v.string(),
  allow: allowList,
  revision: v.number(),
  createdAt: timestamp,
  /** Connectors attached now; 0 means offline. */
  connectors: v.number(),
  /** Whether the private service takes connections, by each connector that looks; an older edge does not say. */
  targets: v.optional(
    v.array(
      v.object({
        machine: v.string(),
        /** `up` or `down`. */
        state: v.string(),
        code: v.optional(v.string()),
        since: timestamp,
      }),
    ),
    [],
  ),
  /** Flows relayed now. */
  flows: v.number(),
  /** Lines of OpenSSH: who signs certificates for users, and for hosts. Empty: the edge has none. */
  sshUserCa: v.optional(v.string(), ''),
  sshHostCa: v.optional(v.string(), ''),
  /** All that are believed, these among them; an older edge has one of each. */
  sshUserCas: v.optional(v.array(v.string()), []),
  sshHostCas: v.optional(v.array(v.string()), []),
  ssh: v.optional(SshSettings, DEFAULT_SSH_SETTINGS),
  /** Host keys of the target as its connector reported them, and those that nobody has accepted yet. */
  sshHostKeys: v.optional(v.object({ keys: v.array(v.string()), pending: v.array(v.string()) }), {
    keys: [],
    pending: [],
  }),
  /** Enroll tokens that can still be used; an older edge does not say. */
  enrollTokens: v.optional(v.number()),
})

export const ClaimServiceResponse = v.object({ service: Service, created: v.boolean() })

/** `GET /v1/services`: own services; all of them for an admin. */
export const ListServicesResponse = v.object({ services: v.array(Service) })

/** `GET | PATCH | DELETE /v1/services/:label`, by label or full host. */
export const UpdateServiceRequest = v.strictObject({
  name: v.optional(serviceName),
  allow: v.optional(allowListInput),
  ssh: v.optional(SshSettingsChange),
  /** Refused with REVISION_CONFLICT when the service is no longer at this revision. */
  revision: v.optional(v.number()),
})
export const ServiceResponse = v.object({ service: Service })

export type Service = v.InferOutput<typeof Service>
export type ClaimServiceRequest = v.InferInput<typeof ClaimServiceRequest>
export type ClaimServiceResponse = v.InferOutput<typeof ClaimServiceResponse>
export type ListServicesResponse = v.InferOutput<typeof ListServicesResponse>
export type UpdateServiceRequest = v.InferInput<typeof UpdateServiceRequest>
export type ServiceResponse = v.InferOutput<typeof ServiceResponse>
