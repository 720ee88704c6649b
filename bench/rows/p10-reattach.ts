import { readFileSync } from 'node:fs'
import { within } from '../../test/support/until.ts'
import { watchAnswers } from '../answers.ts'
import { ApiClient } from '../api-client.ts'
import { inTurns } from '../client-flow.ts'
import { openPath, type Path } from '../path.ts'
import { Figures, type Measured, type Row } from '../row.ts'
import { type ConnectorIdentity, registerConnector, SimulatedConnector } from '../simulated-connector.ts'
import { median, percentile } from '../statistics.ts'

const AT_ONCE = 16
const GIVE_UP_MS = 120_000

/** The edge is killed and started again: until all connectors can serve a flow again. */
export const reattach: Row = {
  id: 'P10',
  title: 'connectors come back after a restart of the edge',
  needs: ['openssl'],
  openFiles: 10_000,
  async run(scale, say): Promise<Measured> {
    const count = scale.quick ? 20 : 2_000
    await using path = await openPath()
    say(`registering ${count} connectors`)
    const identities = await register(path, count)
    using fleet = new Fleet()
    await fleet.start(path, identities)
    say('the edge is killed')
    await path.restartEdge((edge) => edge.kill9())
    const upAt = performance.now()
    const answers = watchAnswers(path.edge)
    await fleet.allReady()
    const { times, inVain } = await answers.stop()
    const figures = new Figures()
    const delays = fleet.connectors.map(({ readyAt }) => Math.max(0, (readyAt! - upAt) / 1_000))
    figures.add('back, half of them', 's', median(delays))
    figures.add('back, the last', 's', Math.max(...delays))
    figures.add(
      'attempts in vain, most by one connector',
      '',
      Math.max(...fleet.connectors.map(({ failures }) => failures)),
    )
    figures.add(
      'attempts in vain, all',
      '',
      fleet.connectors.reduce((sum, { failures }) => sum + failures, 0),
    )
    figures.add('errors in the log of the edge', '', countErrors(path))
    figures.add('answer of /healthz meanwhile, p99', 'ms', percentile(times, 0.99))
    figures.add('answer of /healthz meanwhile, slowest', 'ms', Math.max(...times))
    figures.add('questions without an answer', '', inVain)
    return {
      figures: figures.all(),
      goals: [
        {
          text: 'the last is back',
          value: figures.median('back, the last'),
          unit: 's',
          relation: 'at most',
          limit: 30,
        },
        {
          text: 'errors in the log of the edge',
          value: figures.median('errors in the log of the edge'),
          unit: '',
          relation: 'at most',
          limit: 0,
        },
        {
          text: 'questions without an answer',
          value: inVain,
          unit: '',
          relation: 'at most',
          limit: 0,
        },
        {
          text: 'slowest answer meanwhile',
          value: figures.median('answer of /healthz meanwhile, slowest'),
          unit: 'ms',
          relation: 'at most',
          limit: 2_000,
        },
      ],
      notes: [
        `${count} services with one connector each, simulated in one process, each at an address of its own; counted from the ready edge.`,
      ],
    }
  },
}

async function register({ edge }: Path, count: number): Promise<ConnectorIdentity[]> {
  using api = await ApiClient.signIn(edge, 'operator@mycorp.com')
  const identities: ConnectorIdentity[] = []
  await inTurns(count, AT_ONCE, async (number) => {
    identities.push(await registerConnector(api, `service ${number}`))
  })
  return identities
}

class Fleet implements Disposable {
  readonly connectors: SimulatedConnector[] = []

  /** Starts them a few at a time: what is measured is how they come back. */
  async start({ edge }: Path, identities: readonly ConnectorIdentity[]): Promise<void> {
    const target = { domain: edge.domain, port: edge.port, ca: readFileSync(edge.caFile, 'utf8') }
    await inTurns(identities.length, AT_ONCE, async (number) => {
      const connector = new SimulatedConnector(target, identities[number]!, addressOf(number))
      this.connectors.push(connector)
      await connector.ready()
    })
  }

  async allReady(): Promise<void> {
    const back = Promise.all(this.connectors.map((connector) => connector.ready()))
    await within('all connectors are back', back, GIVE_UP_MS).catch((cause) => {
      const missing = this.connectors.filter(({ readyAt }) => readyAt === undefined)
      const attempts = missing.reduce((sum, { failures }) => sum + failures, 0)
      throw new Error(`${missing.length} are not back after ${attempts} attempts in vain`, { cause })
    })
  }

  [Symbol.dispose](): void {
    for (const connector of this.connectors) connector[Symbol.dispose]()
  }
}

/** One of this machine's sixteen million. */
function addressOf(number: number): string {
  return `127.1.${number >> 8}.${number & 255}`
}

function countErrors({ edge }: Path): number {
  return edge
    .logs()
    .split('\n')
    .filter((line) => line.includes('"level":"error"')).length
}
