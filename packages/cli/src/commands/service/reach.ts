import type { Service } from '@postern/shared/api/services'
import { formatDuration } from '@postern/shared/duration'
import { PosternError } from '@postern/shared/errors'
import { describeAllowList } from '@postern/shared/identity'
import type { Command } from 'commander'
import { stateFolder } from '../../credentials/home.ts'
import { findEdgeOfHost, type KnownEdge, pickEdge } from '../../credentials/known-edge.ts'
import { print, printable } from '../../io.ts'
import { type AskOptions, addAskOptions } from '../ask.ts'
import { parseEdgeOrigin } from '../options.ts'

/** What the `service` commands have in common. */

export interface ServiceOptions extends AskOptions {
  edge?: string
  json?: boolean
}

export function addServiceOptions(command: Command): Command {
  return addAskOptions(
    command
      .option('--edge <url>', 'the edge, when you know several', parseEdgeOrigin)
      .option('--json', 'print JSON'),
  )
}

/** A service by label or by full host; the host tells the edge too. */
export function reachService(service: string, options: ServiceOptions): { edge: KnownEdge; name: string } {
  if (service === '') throw new PosternError('USAGE_INVALID', 'the name of the service is empty')
  if (!service.includes('.')) return { edge: pickEdge(stateFolder(), options.edge), name: service }
  const { edge, host } = findEdgeOfHost(stateFolder(), service, { origin: options.edge })
  return { edge, name: host }
}

export async function printService(service: Service): Promise<void> {
  const lines = [
    printable(service.host),
    `  name        ${printable(service.name)}`,
    `  owner       ${printable(service.owner)}`,
    `  admits      ${printable(describeAllowList(service.allow))}`,
    `  connectors  ${service.connectors === 0 ? 'none: offline' : service.connectors}`,
    ...service.targets.map(({ machine, state, code, since }) => {
      const why = code === undefined ? '' : ` (${printable(code)})`
      return `  target      ${printable(state)} since ${new Date(since).toISOString()}${why}, seen from ${printable(machine)}`
    }),
    `  flows       ${service.flows}`,
    ...(service.enrollTokens
      ? [`  tokens      ${service.enrollTokens} to enroll a server, not used yet`]
      : []),
    `  created     ${new Date(service.createdAt).toISOString()}`,
    `  revision    ${service.revision}`,
  ]
  await print(`${lines.join('\n')}\n`)
}

/** `2 up, 1 flows`, and whether the private service behind them is there. */
export function describeState({ connectors, flows, targets }: Service, now: number): string {
  if (connectors === 0) return 'offline'
  const running = `${connectors} up, ${flows} flows`
  const down = targets.filter(({ state }) => state === 'down')
  const [first] = down.toSorted((one, other) => one.since - other.since)
  if (!first) return running
  const which = down.length < connectors ? `${down.length} targets down` : 'target down'
  return `${running}, ${which} for ${formatDuration(Math.max(0, now - first.since))}`
}
