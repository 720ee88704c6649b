import * as v from 'valibot'
import { timestamp } from './fields.ts'

/** `GET /v1/flows/:id/explanation`: what became of a flow. Its own person hears what they were told; the owner of its
 *  service, auditors and administrators also hear the rule. For everybody else there is no such flow. */
export const FlowExplanationResponse = v.object({
  flowId: v.string(),
  email: v.string(),
  host: v.string(),
  clientAddress: v.optional(v.string()),
  /** In the order in which it happened. */
  events: v.array(
    v.object({
      at: timestamp,
      /** A sentence for people. */
      what: v.string(),
      code: v.optional(v.string()),
      /** Left out for whom it is not meant. */
      rule: v.optional(v.string()),
    }),
  ),
})

export type FlowExplanationResponse = v.InferOutput<typeof FlowExplanationResponse>
