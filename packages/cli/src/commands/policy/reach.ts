import { readFileSync } from 'node:fs'
import type { ReplacePolicyRequest } from '@postern/shared/api/policy'
import { PosternError } from '@postern/shared/errors'
import type { Policy } from '@postern/shared/policy'
import { unreadableFile } from '@postern/shared/unreadable-file'
import { stateFolder } from '../../credentials/home.ts'
import { type KnownEdge, pickEdge } from '../../credentials/known-edge.ts'
import type { PolicyDocument } from '../../policy/policy-file.ts'
import { reachService, type ServiceOptions } from '../service/reach.ts'

/** What the `policy` commands have in common. */

/** The edge of a service, or without one the edge whose defaults are meant. */
export function reachPolicy(
  service: string | undefined,
  options: ServiceOptions,
): { edge: KnownEdge; name: string | undefined } {
  if (service !== undefined) return reachService(service, options)
  return { edge: pickEdge(stateFolder(), options.edge), name: undefined }
}

/** @param file a path, or `-` for standard input
 *  @throws USAGE_INVALID it cannot be read · POLICY_INVALID */
export async function readPolicyFile(file: string): Promise<PolicyDocument[]> {
  const { parsePolicyFile } = await import('../../policy/policy-file.ts')
  const name = file === '-' ? 'standard input' : file
  try {
    return parsePolicyFile(readFileSync(file === '-' ? 0 : file, 'utf8'), name)
  } catch (cause) {
    if (cause instanceof PosternError) throw cause
    throw unreadableFile(name, cause)
  }
}

/** The types of the wire are the same with arrays that may be written to. */
export function toRequest(policy: Policy): ReplacePolicyRequest['policy'] {
  return structuredClone(policy) as ReplacePolicyRequest['policy']
}

/** How a document is called in messages. */
export function describeScope(service: string | undefined): string {
  return service ?? 'the defaults'
}
