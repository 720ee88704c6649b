import path from 'node:path'
import { PosternError } from '@postern/shared/errors'
import type { Command } from 'commander'
import { WatchedFile } from '../../watched-file.ts'
import { checkConnectWords } from '../connect.ts'
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

interface InstallOptions extends ServiceOptions {
  file?: string
}

async function runInstall(words: readonly string[], options: InstallOptions): Promise<void> {
  if (options.uninstall) return removeService(options)
  const batch = words.includes('--batch') ? [] : ['--batch']
  const service = describeService(options, {
    description: 'Postern connector',
    words: ['connect', ...(await readWhat(words, options.file)), ...batch],
    commandLine: LINE,
  })
  await setUpService(options, service)
}

/** @throws USAGE_INVALID */
async function readWhat(words: readonly string[], file: string | undefined): Promise<string[]> {
  if (file !== undefined) {
    checkConnectWords(['-f', file, ...words])
    await checkFile(file)
    return ['-f', path.resolve(file), ...words]
  }
  if (words.length > 0) {
    checkConnectWords(words)
    return [...words]
  }
  throw new PosternError('USAGE_INVALID', 'nothing says what the connector exposes', {
    hint: `name a file, or after -- what postern connect takes: ${LINE} -- --name db --port 5432`,
  })
}

/** What would not start is not installed.
 *  @throws USAGE_INVALID · what is wrong with it */
async function checkFile(file: string): Promise<void> {
  const { explainProblems } = await import('../../entry-file.ts') // no other command needs YAML
  const { parseServicesFile } = await import('../services-file.ts')
  const { problems } = parseServicesFile(new WatchedFile(file).readNamed(), file)
  if (problems.length > 0) throw explainProblems(file, problems)
}

export function addConnectorInstallService(parent: Command): void {
  const command = parent
    .command('install-service')
    .description('make a connector a service of yours, which comes back when you sign in to this machine')
    .argument('[options...]', 'after --: what postern connect takes')
    .option('-f, --file <file>', 'the services, as postern connect reads them')
  addServiceOptions(command, 'postern-connect').action(runInstall)
  addExamples(command, [
    ['look at it first', `${LINE} --dry-run -- --name db --port 5432`],
    ['and then', `${LINE} -- --name db --port 5432 --allowed-email-domains mycorp.com`],
    ['many services, from a file', `${LINE} -f connector.yaml`],
    ['another one beside it', `${LINE} --unit postern-ssh -- --name 'ssh of build-7' --port 22`],
    ['end it and take it away', `${LINE} --uninstall`],
  ])
}
