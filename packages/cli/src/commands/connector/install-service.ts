import { PosternError } from '@postern/shared/errors'
import type { Command } from 'commander'
import { addExamples } from '../examples.ts'
import {
  addServiceOptions,
  describeService,
  removeService,
  type ServiceOptions,
  setUpService,
} from '../service-options.ts'

/** `postern connector install-service`: a connector as a service of this person. A server without a person has the unit
 *  of packaging/systemd. */

const LINE = 'postern connector install-service'

async function runInstall(words: readonly string[], options: ServiceOptions): Promise<void> {
  if (options.uninstall) return removeService(options)
  if (words.length === 0) {
    throw new PosternError('USAGE_INVALID', 'nothing says what the connector exposes', {
      hint: `give it what postern connect takes, after --: ${LINE} -- --name db --port 5432`,
    })
  }
  const batch = words.includes('--batch') ? [] : ['--batch']
  const service = describeService(options, {
    description: 'Postern connector',
    words: ['connect', ...words, ...batch],
    commandLine: LINE,
  })
  await setUpService(options, service)
}

export function addConnectorInstallService(parent: Command): void {
  const command = parent
    .command('install-service')
    .description('make a connector a service of yours, which comes back when you sign in to this machine')
    .argument('[options...]', 'after --: what postern connect takes')
  addServiceOptions(command, 'postern-connect').action(runInstall)
  addExamples(command, [
    ['look at it first', `${LINE} --dry-run -- --name db --port 5432`],
    ['and then', `${LINE} -- --name db --port 5432 --allowed-email-domains mycorp.com`],
    ['another one beside it', `${LINE} --unit postern-ssh -- --name 'ssh of build-7' --port 22`],
    ['end it and take it away', `${LINE} --uninstall`],
  ])
}
