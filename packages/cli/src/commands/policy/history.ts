import type { Command } from 'commander'
import { listPolicyRevisions } from '../../api/policy-api.ts'
import { callSignedIn } from '../../credentials/fresh.ts'
import { printJson, printTable, tell } from '../../io.ts'
import { loginPolicy } from '../ask.ts'
import { addExamples } from '../examples.ts'
import { addServiceOptions, type ServiceOptions } from '../service/reach.ts'
import { reachPolicy } from './reach.ts'

async function runPolicyHistory(service: string | undefined, options: ServiceOptions): Promise<void> {
  const { edge, name } = reachPolicy(service, options)
  const revisions = await callSignedIn(edge, loginPolicy(options), (api, session) =>
    listPolicyRevisions(api, session, name),
  )
  if (options.json) return printJson({ revisions })
  if (revisions.length === 0) return tell('nobody has written this policy yet')
  await printTable(
    ['revision', 'time', 'by', 'allow', 'deny', 'require'],
    revisions.map(({ revision, changedAt, changedBy, policy }) => [
      String(revision),
      changedAt === undefined ? '' : new Date(changedAt).toISOString(),
      changedBy ?? 'unknown',
      `${policy.allow.length} rules`,
      `${policy.deny.length} rules`,
      Object.keys(policy.require).join(', ') || 'nothing',
    ]),
  )
}

export function addPolicyHistory(parent: Command): void {
  const command = parent
    .command('history')
    .description('list the revisions of a policy document, newest first; --json has them whole')
    .argument('[service]', 'its label or full host')
  addServiceOptions(command).action(runPolicyHistory)
  addExamples(command, [['who changed what', 'postern policy history crimson-thunder-8434 --json']])
}
