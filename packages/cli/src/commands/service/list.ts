import { describeAllowList } from '@postern/shared/identity'
import type { Command } from 'commander'
import { callSignedIn } from '../../credentials/fresh.ts'
import { stateFolder } from '../../credentials/home.ts'
import { edgeNow, pickEdge } from '../../credentials/known-edge.ts'
import { printJson, printTable, tell } from '../../io.ts'
import { loginPolicy } from '../ask.ts'
import { addExamples } from '../examples.ts'
import { addServiceOptions, describeState, type ServiceOptions } from './reach.ts'

async function runServiceList(options: ServiceOptions): Promise<void> {
  const edge = pickEdge(stateFolder(), options.edge)
  const services = await callSignedIn(edge, loginPolicy(options), (api, session) => api.listServices(session))
  if (options.json) return printJson({ services })
  if (services.length === 0) return tell('there are no services yet; postern connect makes one')
  await printTable(
    ['host', 'name', 'owner', 'state', 'admits'],
    services.map((service) => [
      service.host,
      service.name,
      service.owner,
      describeState(service, edgeNow(edge)),
      describeAllowList(service.allow),
    ]),
  )
}

export function addServiceList(parent: Command): void {
  const command = parent.command('list').description('show your services; an administrator sees all')
  addServiceOptions(command).action(runServiceList)
  addExamples(command, [
    ['a table', 'postern service list'],
    ['for scripts', 'postern service list --json'],
  ])
}
