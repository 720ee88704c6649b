import type { TestPolicyRequest } from '@postern/shared/api/policy'
import { parseEmailAddress } from '@postern/shared/email'
import { PosternError } from '@postern/shared/errors'
import { parseWorkloadName } from '@postern/shared/workload-name'
import type { Command } from 'commander'
import { testPolicy } from '../../api/policy-api.ts'
import { callSignedIn } from '../../credentials/fresh.ts'
import { print, printJson } from '../../io.ts'
import { loginPolicy } from '../ask.ts'
import { addExamples } from '../examples.ts'
import { collectList } from '../options.ts'
import { addServiceOptions, reachService, type ServiceOptions } from '../service/reach.ts'

interface TestOptions extends ServiceOptions {
  identity?: string
  workload?: string
  service: string
  from?: string
  at?: number
  group?: string[]
  amr?: string[]
  acr?: string
}

async function runPolicyTest(options: TestOptions): Promise<void> {
  const { edge, name } = reachService(options.service, options)
  const request: TestPolicyRequest = {
    ...readWho(options),
    service: name,
    sourceAddress: options.from,
    at: options.at,
    groups: options.group,
    amr: options.amr,
    acr: options.acr,
  }
  const decision = await callSignedIn(edge, loginPolicy(options), (api, session) =>
    testPolicy(api, session, request),
  )
  if (options.json) return printJson(decision)
  await print(`${decision.allowed ? 'allow' : 'deny'}\n  ${decision.explanation.join('\n  ')}\n`)
}

/** @throws USAGE_INVALID nobody, or two */
function readWho({ identity, workload }: TestOptions): Pick<TestPolicyRequest, 'identity' | 'workload'> {
  if ((identity === undefined) === (workload === undefined)) {
    throw new PosternError('USAGE_INVALID', 'say who asks: --identity, or --workload')
  }
  return identity === undefined
    ? { workload: parseWorkloadName(workload!) }
    : { identity: parseEmailAddress(identity) }
}

/** @throws USAGE_INVALID */
function parseMoment(text: string): number {
  const moment = Date.parse(text)
  if (!Number.isNaN(moment)) return moment
  throw new PosternError('USAGE_INVALID', `${JSON.stringify(text)} is not a moment`, {
    hint: 'write it as 2026-07-01T18:00:00+02:00',
  })
}

export function addPolicyTest(parent: Command): void {
  const command = parent
    .command('test')
    .description(
      'ask what would be decided, and why. What no option says is taken from the last login of the person',
    )
    .option('--identity <email>', 'the person')
    .option('--workload <name>', 'in place of a person: a program with a certificate of its own')
    .requiredOption('--service <service>', 'label or full host')
    .option('--from <address>', 'the address they come from')
    .option('--at <moment>', 'decide at this moment, 2026-07-01T18:00:00+02:00 for example', parseMoment)
    .option('--group <group>', 'as if they were in this group; may be given again', collectList)
    .option('--amr <method>', 'as if their login had used this method; may be given again', collectList)
    .option('--acr <class>', 'as if their login had this class')
  addServiceOptions(command).action(runPolicyTest)
  addExamples(command, [
    [
      'may they, on Sunday, from home',
      'postern policy test --identity dev@mycorp.com --service crimson-thunder-8434 --from 203.0.113.7 --at 2026-07-05T10:00:00Z',
    ],
    ['a program', 'postern policy test --workload carbon-relay-3 --service crimson-thunder-8434'],
  ])
}
