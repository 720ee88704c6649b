import type { PolicyResponse } from '@postern/shared/api/policy'
import type { Policy } from '@postern/shared/policy'
import type { Command } from 'commander'
import { getPolicy } from '../../api/policy-api.ts'
import { callSignedIn } from '../../credentials/fresh.ts'
import { print, printJson } from '../../io.ts'
import { loginPolicy } from '../ask.ts'
import { addExamples } from '../examples.ts'
import { addServiceOptions, type ServiceOptions } from '../service/reach.ts'
import { reachPolicy } from './reach.ts'

async function runPolicyGet(service: string | undefined, options: ServiceOptions): Promise<void> {
  const { edge, name } = reachPolicy(service, options)
  const found: PolicyResponse = await callSignedIn(edge, loginPolicy(options), (api, session) =>
    getPolicy(api, session, name),
  )
  if (options.json) return printJson(found)
  const { formatPolicyFile } = await import('../../policy/policy-file.ts')
  await print(formatPolicyFile({ service: name, revision: found.revision, policy: found.policy as Policy }))
}

export function addPolicyGet(parent: Command): void {
  const command = parent
    .command('get')
    .description('print a policy document as YAML: of a service, or the defaults of all services')
    .argument('[service]', 'its label or full host')
  addServiceOptions(command).action(runPolicyGet)
  addExamples(command, [
    ['edit the policy of a service', 'postern policy get crimson-thunder-8434 > policy.yaml'],
    ['the defaults of all services', 'postern policy get'],
  ])
}
