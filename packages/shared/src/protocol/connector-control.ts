import * as v from 'valibot'

/** Messages of the control WebSocket, `wss://mtls.<domain>/v1/connector`, subprotocol `postern-connector.v1`.
 *  One JSON object per text message, at most MAX_CONTROL_MESSAGE_BYTES. Both sides ping every
 *  CONTROL_PING_MS and give the other up after CONTROL_SILENCE_MS without any frame.
 *
 *  | message  | from      | meaning                                                                      |
 *  |----------|-----------|------------------------------------------------------------------------------|
 *  | attach   | connector | first message: version, which process, what it can and needs from the edge   |
 *  | attached | edge      | answer: id for data connections, the service, how many to keep warm          |
 *  | target   | connector | whether its service takes connections, and for how long it has been so            |
 *  | want     | edge      | open `count` more data connections now: no warm one is left                  |
 *  | refused  | edge      | last message before close: why this connector may not stay (code, message)   |
 *  | draining | edge      | the edge is about to stop: attach again elsewhere or later, flows may finish |
 *
 *  An unknown `type` is ignored; an unknown entry in `requires` is refused with PROTOCOL_INVALID. */
export const CONTROL_SUBPROTOCOL = 'postern-connector.v1'
export const CONTROL_PATH = '/v1/connector'
export const MAX_CONTROL_MESSAGE_BYTES = 64 * 1024
export const CONTROL_PING_MS = 10_000
export const CONTROL_SILENCE_MS = 30_000
export const CONTROL_VERSION = 1
/** Close code after `refused`, in the range for applications (RFC 6455 §7.4.2). */
export const CLOSE_REFUSED = 4403
/** Close code of a connection whose place another one with the same key has taken. */
export const CLOSE_REPLACED = 4409

const id = v.pipe(v.string(), v.minLength(1), v.maxLength(128))
const names = v.pipe(v.array(v.pipe(v.string(), v.maxLength(64))), v.maxLength(32))

export const AttachMessage = v.object({
  type: v.literal('attach'),
  version: v.pipe(v.number(), v.integer(), v.minValue(1)),
  /** Version of the program, for people: `0.1.0`. */
  software: v.pipe(v.string(), v.maxLength(64)),
  features: names,
  requires: names,
  /** Drawn by each process for itself and kept in memory only, so that whoever copies the connector's files does not
   *  have it: the edge tells a process that comes back from a second one with the same key. */
  instanceId: v.optional(id),
})

/** Said after attach and whenever it changes, by connectors that look. Times are told by their length: clocks differ. */
export const TargetMessage = v.object({
  type: v.literal('target'),
  state: v.picklist(['up', 'down']),
  /** Why it is down. */
  code: v.optional(v.pipe(v.string(), v.maxLength(64), v.regex(/^[A-Z_]+$/))),
  forMs: v.pipe(v.number(), v.minValue(0), v.maxValue(1e12)),
})

export const AttachedMessage = v.object({
  type: v.literal('attached'),
  version: v.pipe(v.number(), v.integer(), v.minValue(1)),
  attachmentId: id,
  service: v.object({
    id,
    label: v.string(),
    name: v.string(),
    host: v.string(),
    allow: v.object({
      emailDomains: v.array(v.string()),
      emailAddresses: v.array(v.string()),
      anyAuthenticated: v.boolean(),
    }),
  }),
  /** Data connections to keep open and unused. */
  warm: v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(64)),
})

export const WantMessage = v.object({
  type: v.literal('want'),
  count: v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(1024)),
})

export const RefusedMessage = v.object({
  type: v.literal('refused'),
  code: v.pipe(v.string(), v.maxLength(64)),
  message: v.pipe(v.string(), v.maxLength(2_000)),
  hint: v.optional(v.pipe(v.string(), v.maxLength(2_000))),
})

export const DrainingMessage = v.object({ type: v.literal('draining') })

/** What the edge may say. */
export const EdgeMessage = v.variant('type', [AttachedMessage, WantMessage, RefusedMessage, DrainingMessage])

export type TargetMessage = v.InferOutput<typeof TargetMessage>
export type AttachMessage = v.InferOutput<typeof AttachMessage>
export type AttachedMessage = v.InferOutput<typeof AttachedMessage>
export type EdgeMessage = v.InferOutput<typeof EdgeMessage>
