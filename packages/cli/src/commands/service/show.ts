import type { Command } from 'commander'
import { callSignedIn } from '../../credentials/fresh.ts'
import { printJson } from '../../io.ts'
import { loginPolicy } from '../ask.ts'
import { addExamples } from '../examples.ts'
import { addServiceOptions, printService, reachService, type ServiceOptions } from './reach.ts'

async function runServiceShow(given: string, options: ServiceOptions): Promise<void> {
  const { edge, name } = reachService(given, options)
  const service = await callSignedIn(edge, loginPolicy(options), (api, session) =>
    api.getService(session, name),
  )
  await (options.json ? printJson({ service }) : printService(service))
}

export function addServiceShow(parent: Command): void {
  const command = parent
    .command('show')
    .description('show one service')
    .argument('<service>', 'its label or full host')
  addServiceOptions(command).action(runServiceShow)
  addExamples(command, [['one service', 'postern service show crimson-thunder-8434']])
}
