import * as v from 'valibot'
import { PosternError } from '../errors.ts'
import { MAX_FLOW_IDENTITY_BYTES } from '../proxy-protocol/flow-identity.ts'

/** Bodies of the control frames in `frames.ts`. Unknown members are ignored, so a newer peer may add some. */

const id = v.pipe(v.string(), v.minLength(1), v.maxLength(128))
const text = v.pipe(v.string(), v.maxLength(2_000))

/** connector → edge, first frame of a data connection. */
export const HelloFrame = v.object({ version: v.literal(1), attachmentId: id })

/** edge → connector. Never carries a target address: the connector knows its own. */
export const OpenFrame = v.object({
  flowId: id,
  serviceId: id,
  identity: v.object({ id, email: v.pipe(v.string(), v.maxLength(320)) }),
  /** Address of the client as the edge sees it, `203.0.113.7:50514` or `[2001:db8::7]:50514`. */
  clientAddress: text,
  /** Where the client has reached the edge, and who it is, signed: for connectors that require it. */
  edgeAddress: v.optional(text),
  identityToken: v.optional(v.pipe(v.string(), v.maxLength(MAX_FLOW_IDENTITY_BYTES))),
})

/** The service accepted the connection. */
export const OkFrame = v.object({ flowId: id })

/** connector → edge carries the code only; edge → client adds the sentence, the next step and the flow to ask for. */
export const ErrorFrame = v.object({
  code: id,
  message: v.optional(text),
  hint: v.optional(text),
  flowId: v.optional(id),
})

export type HelloFrame = v.InferOutput<typeof HelloFrame>
export type OpenFrame = v.InferOutput<typeof OpenFrame>
export type OkFrame = v.InferOutput<typeof OkFrame>
export type ErrorFrame = v.InferOutput<typeof ErrorFrame>

/** @throws PROTOCOL_INVALID */
export function readFrameBody<S extends v.GenericSchema>(
  schema: S,
  body: unknown,
  name: string,
): v.InferOutput<S> {
  const result = v.safeParse(schema, body)
  if (result.success) return result.output
  throw new PosternError('PROTOCOL_INVALID', `the ${name} frame is malformed`, {
    details: { issues: result.issues.map((issue) => `${v.getDotPath(issue)}: ${issue.message}`) },
  })
}
