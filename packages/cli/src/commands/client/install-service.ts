import path from 'node:path'
import { PosternError } from '@postern/shared/errors'
import type { Command } from 'commander'
import { type NetworkOptions, useNetwork } from '../../network/options.ts'
import { type AskOptions, addAskOptions } from '../ask.ts'
import { addExamples } from '../examples.ts'
import { addNetworkOptions } from '../network-options.ts'
import {
  addServiceOptions,
  describeService,
  removeService,
  type ServiceOptions,
  setUpService,
} from '../service-options.ts'

/** `postern client install-service`: the listeners of a file as a service of this person. */

interface InstallOptions extends ServiceOptions, AskOptions, NetworkOptions {
  file?: string
}

const LINE = 'postern client install-service'

async function runInstall(options: InstallOptions): Promise<void> {
  if (options.uninstall) return removeService(options)
  const { file } = options
  if (file === undefined) {
    throw new PosternError('USAGE_INVALID', 'nothing says what the service listens for', {
      hint: `name a file of listeners: ${LINE} -f listeners.yaml`,
    })
  }
  useNetwork(options) // refuses a password in it
  const { readListenersOf } = await import('./listen-file.ts')
  readListenersOf(file) // what would not start is not installed
  const words = ['client', 'listen', '-f', path.resolve(file), ...askWords(options), ...networkWords(options)]
  const service = describeService(options, { description: 'Postern listeners', words, commandLine: LINE })
  await setUpService(options, service)
}

/** A service has no terminal: it asks nobody unless it is told how. */
function askWords({ interactive, browser }: AskOptions): string[] {
  const words = [
    ...(typeof browser === 'string' ? ['--browser', browser] : []),
    ...(browser === false ? ['--no-browser'] : []),
    ...(interactive ? ['--interactive'] : []),
  ]
  return interactive || typeof browser === 'string' ? words : [...words, '--batch']
}

/** A service has not the environment of this shell either. */
function networkWords(options: NetworkOptions): string[] {
  const word = (name: string, value: string | undefined) => (value === undefined ? [] : [name, value])
  const file = (name: string, value: string | undefined) => word(name, value && path.resolve(value))
  return [
    ...word('--proxy', options.proxy),
    ...file('--proxy-credentials-file', options.proxyCredentialsFile),
    ...file('--proxy-ca-file', options.proxyCaFile),
    ...word('--transport', options.transport),
    ...file('--transport-ca', options.transportCa),
  ]
}

export function addClientInstallService(parent: Command): void {
  const command = parent
    .command('install-service')
    .description(
      'make the listeners of a file a service of yours, which comes back when you sign in to this machine',
    )
    .option('-f, --file <file>', 'the listeners, as postern client listen reads them')
  addServiceOptions(addNetworkOptions(addAskOptions(command)), 'postern-listen').action(
    (options: InstallOptions) => runInstall(options),
  )
  addExamples(command, [
    ['look at it first', `${LINE} -f listeners.yaml --dry-run`],
    ['and then', `${LINE} -f listeners.yaml`],
    ['on a Mac', `${LINE} -f listeners.yaml --print launchd`],
    ['end it and take it away', `${LINE} --uninstall`],
  ])
}
