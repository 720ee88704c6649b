import type { Command } from 'commander'
import { callSignedIn } from '../../credentials/fresh.ts'
import { printable, printJson, tell } from '../../io.ts'
import { loginPolicy } from '../ask.ts'
import { addExamples } from '../examples.ts'
import { addServiceOptions, reachService, type ServiceOptions } from './reach.ts'

async function runServiceDelete(given: string, options: ServiceOptions): Promise<void> {
  const { edge, name } = reachService(given, options)
  await callSignedIn(edge, loginPolicy(options), (api, session) => api.deleteService(session, name))
  if (options.json) return printJson({ deleted: name })
  tell(`deleted ${printable(name)}: its flows and connectors end now, its label stays yours`)
}

export function addServiceDelete(parent: Command): void {
  const command = parent
    .command('delete')
    .description('delete a service; its flows and connectors end at once')
    .argument('<service>', 'its label or full host')
  addServiceOptions(command).action(runServiceDelete)
  addExamples(command, [['for good', 'postern service delete crimson-thunder-8434']])
}
