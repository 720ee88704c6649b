import { PosternError } from './errors.ts'

/** What an operator calls a program that has a certificate of its own: `carbon-relay-3`. */
export type WorkloadName = string & { readonly __brand: 'WorkloadName' }

/** What stands where people have their address: in lists, the audit log and the words of a connector. No address has
 *  this form. */
export const WORKLOAD_PREFIX = 'workload:'

const FORM = /^[A-Za-z0-9](?:[A-Za-z0-9._-]{0,62}[A-Za-z0-9])?$/

/** @throws WORKLOAD_INVALID */
export function parseWorkloadName(text: string): WorkloadName {
  if (FORM.test(text)) return text as WorkloadName
  throw new PosternError('WORKLOAD_INVALID', `${JSON.stringify(text)} is not the name of a workload`)
}
