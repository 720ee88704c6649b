import type { DiffPolicyResponse } from '@postern/shared/api/policy'
import type { Command } from 'commander'
import { diffPolicy } from '../../api/policy-api.ts'
import { callSignedIn } from '../../credentials/fresh.ts'
import { print, printJson, printTable } from '../../io.ts'
import { loginPolicy } from '../ask.ts'
import { addExamples } from '../examples.ts'
import { addServiceOptions, type ServiceOptions } from '../service/reach.ts'
import { describeScope, reachPolicy, readPolicyFile, toRequest } from './reach.ts'

interface DiffOptions extends ServiceOptions {
  file: string
}

async function runPolicyDiff(options: DiffOptions): Promise<void> {
  const documents = await readPolicyFile(options.file)
  const places = documents.map(({ service, policy }) => ({ policy, ...reachPolicy(service, options) }))
  for (const { policy, edge, name } of places) {
    const diff = await callSignedIn(edge, loginPolicy(options), (api, session) =>
      diffPolicy(api, session, { service: name, policy: toRequest(policy) }),
    )
    await (options.json ? printJson({ service: name, ...diff }, 0) : printDiff(describeScope(name), diff))
  }
}

async function printDiff(what: string, diff: DiffPolicyResponse): Promise<void> {
  const { flows, blocked, admitted, people, services, revision } = diff
  const seen = `${people} people of the last 30 days and ${services} services looked at`
  await print(
    `${what}, against revision ${revision}: ends ${flows.length} live flows, shuts out ${blocked.length}, newly admits ${admitted} (${seen})\n`,
  )
  if (flows.length > 0) {
    await printTable(
      ['flow', 'person', 'service', 'from', 'since', 'because of'],
      flows.map(({ flowId, email, label, clientAddress, startedAt, rule }) => [
        flowId,
        email,
        label,
        clientAddress,
        new Date(startedAt).toISOString(),
        rule,
      ]),
    )
  }
  if (blocked.length > 0) {
    await printTable(
      ['shut out', 'service', 'last seen', 'because of'],
      blocked.map(({ email, label, lastSeenAt, rule }) => [
        email,
        label,
        new Date(lastSeenAt).toISOString(),
        rule,
      ]),
    )
  }
}

export function addPolicyDiff(parent: Command): void {
  const command = parent
    .command('diff')
    .description(
      'tell what an edit would do: the live flows it would end, the people of the last 30 days it would shut out, how many it would admit. Changes nothing',
    )
    .requiredOption('-f, --file <file>', 'YAML with one or more documents; - reads standard input')
  addServiceOptions(command).action(runPolicyDiff)
  addExamples(command, [['before it is put in force', 'postern policy diff -f policy.yaml']])
}
