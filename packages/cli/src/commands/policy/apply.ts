import type { PolicyResponse } from '@postern/shared/api/policy'
import type { Command } from 'commander'
import type { EdgeApi } from '../../api/edge-api.ts'
import { getPolicy, replacePolicy } from '../../api/policy-api.ts'
import { callSignedIn } from '../../credentials/fresh.ts'
import type { Session } from '../../credentials/session.ts'
import { printJson, tell } from '../../io.ts'
import type { PolicyDocument } from '../../policy/policy-file.ts'
import { loginPolicy } from '../ask.ts'
import { addExamples } from '../examples.ts'
import { addServiceOptions, type ServiceOptions } from '../service/reach.ts'
import { describeScope, reachPolicy, readPolicyFile, toRequest } from './reach.ts'

interface ApplyOptions extends ServiceOptions {
  file: string
}

async function runPolicyApply(options: ApplyOptions): Promise<void> {
  const documents = await readPolicyFile(options.file)
  // all of them before the first is sent: a name that is no service of a known edge stops the whole file
  const places = documents.map((document) => ({ document, ...reachPolicy(document.service, options) }))
  for (const { document, edge, name } of places) {
    const applied = await callSignedIn(edge, loginPolicy(options), (api, session) =>
      apply(api, session, { ...document, service: name }),
    )
    if (options.json) await printJson({ service: name, ...applied }, 0)
    else {
      tell(
        `${describeScope(name)}: revision ${applied.revision} is in force; flows that it does not admit end now`,
      )
    }
  }
}

/** A document without a revision goes over whatever is there. */
async function apply(api: EdgeApi, session: Session, document: PolicyDocument): Promise<PolicyResponse> {
  const { service, policy } = document
  const revision = document.revision ?? (await getPolicy(api, session, service)).revision
  return replacePolicy(api, session, { service, policy: toRequest(policy), revision })
}

export function addPolicyApply(parent: Command): void {
  const command = parent
    .command('apply')
    .description(
      'put policy documents in force. A document with the revision it was edited from is refused when somebody else changed it meanwhile',
    )
    .requiredOption('-f, --file <file>', 'YAML with one or more documents; - reads standard input')
  addServiceOptions(command).action(runPolicyApply)
  addExamples(command, [
    ['what was edited', 'postern policy apply -f policy.yaml'],
    ['look first what it would do', 'postern policy diff -f policy.yaml'],
  ])
}
