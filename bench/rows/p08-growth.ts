import { startListener } from '../../test/support/listen.ts'
import { until } from '../../test/support/until.ts'
import { type ClientFlow, type Entrance, entranceOf, inTurns, openFlow, openFlows } from '../client-flow.ts'
import { openPath, type Path } from '../path.ts'
import { cpuOf } from '../processes.ts'
import { Figures, type Measured, type Row, type Scale } from '../row.ts'
import { connectLocal, transfer } from '../service.ts'
import { addServices, forgetPolicy, writePolicy } from '../store.ts'

const MIB = 1024 * 1024
const AT_ONCE = 8
const MAX_ROUNDS = 3
const FLAT = 1.2

const SETUP = 'CPU of a flow'
const BYTES = 'CPU of a GiB'

/** What a flow and a byte cost the edge when there is much of everything. */
export const growth: Row = {
  id: 'P8',
  title: 'CPU of the edge as flows, policy and services grow',
  needs: ['openssl'],
  openFiles: 12_000,
  async run(scale, say): Promise<Measured> {
    const levels = scale.quick
      ? { flows: [2, 6], entries: [10, 100], services: [0, 100] }
      : { flows: [10, 100, 1_000, 5_000], entries: [10, 1_000, 100_000], services: [10, 100_000] }
    await using path = await openPath()
    const figures = new Figures()
    const measure = { path, figures, scale: { ...scale, rounds: Math.min(scale.rounds, MAX_ROUNDS) } }
    await measureFlows(levels.flows, measure, say)
    const { dataDir } = path.edge
    const { id: serviceId } = (await path.connector.event('ready')).service as { id: string }
    for (const entries of levels.entries) {
      say(`policy with ${entries} entries`)
      await changeStore(path, () => writePolicy(dataDir, serviceId, entries))
      await measureSetup(nameOf(SETUP, entries, 'policy entries'), measure)
    }
    let known = 1
    for (const services of levels.services) {
      say(`${services} services`)
      await changeStore(path, () => {
        forgetPolicy(dataDir, serviceId)
        addServices(dataDir, Math.max(0, services - known), known)
      })
      known = Math.max(known, services)
      await measureSetup(nameOf(SETUP, services, 'services'), measure)
    }
    const flat = (what: string, counts: readonly number[], of: string): Measured['goals'][number] => {
      const medians = counts.map((count) => figures.median(nameOf(what, count, of)))
      const value = Math.max(...medians) / Math.max(Math.min(...medians), Number.EPSILON)
      return {
        text: `${what}, most against least, by ${of}`,
        value,
        unit: '×',
        relation: 'at most',
        limit: FLAT,
      }
    }
    return {
      figures: figures.all(),
      goals: [
        flat(SETUP, levels.flows, 'live flows'),
        flat(BYTES, levels.flows, 'live flows'),
        flat(SETUP, levels.entries, 'policy entries'),
        flat(SETUP, levels.services, 'services'),
      ],
      notes: ['Entries are in deny rules, which are looked at before anybody is admitted.'],
    }
  },
}

interface Measure {
  path: Path
  figures: Figures
  scale: Scale
}

function nameOf(what: string, count: number, of: string): string {
  return `${what}, ${count} ${of}`
}

async function measureFlows(
  levels: readonly number[],
  measure: Measure,
  say: (line: string) => void,
): Promise<void> {
  const { path, figures, scale } = measure
  await using listener = await startListener({ home: path.home, host: path.host })
  const entrance = entranceOf(path.edge, path.host, path.identity)
  await warmUp(entrance, scale)
  const bytes = (scale.quick ? 4 : 512) * MIB
  await pumpThrough(listener.port, bytes)
  const live: ClientFlow[] = []
  for (const level of levels) {
    say(`${level} live flows`)
    live.push(...(await openFlows(entrance, level - live.length)))
    for (let round = 0; round < scale.rounds; round++) {
      const cpu = await cpuOf(path.edge.pid, () => pumpThrough(listener.port, bytes))
      figures.add(nameOf(BYTES, level, 'live flows'), 'ms CPU', (cpu * 1_000 * 1_024 * MIB) / bytes)
    }
    await measureSetup(nameOf(SETUP, level, 'live flows'), measure)
  }
  for (const flow of live) flow.destroy()
}

async function measureSetup(name: string, { path, figures, scale }: Measure): Promise<void> {
  const entrance = entranceOf(path.edge, path.host, path.identity)
  const count = flowsOf(scale)
  await warmUp(entrance, scale)
  for (let round = 0; round < scale.rounds; round++) {
    const cpu = await cpuOf(path.edge.pid, () => openAndEnd(entrance, count))
    figures.add(name, 'ms CPU', (cpu * 1_000) / count)
  }
}

/** What the first flows load, and what Node compiles when it has seen enough of them, is not theirs. */
function warmUp(entrance: Entrance, scale: Scale): Promise<void> {
  return openAndEnd(entrance, flowsOf(scale))
}

function flowsOf({ quick }: Scale): number {
  return quick ? 5 : 300
}

function openAndEnd(entrance: Entrance, count: number): Promise<void> {
  return inTurns(count, AT_ONCE, async () => (await openFlow(entrance)).end())
}

async function pumpThrough(port: number, bytes: number): Promise<void> {
  const socket = await connectLocal(port)
  await transfer('up', bytes, { input: socket, output: socket })
  socket.destroy()
}

/** Stops the edge, changes what it has stored, and starts it again. */
async function changeStore(path: Path, change: () => void): Promise<void> {
  const seen = countReconnects(path)
  await path.restartEdge((edge) => edge.stop(), change)
  await until('the connector is back', () => countReconnects(path) > seen, 120_000)
}

function countReconnects({ connector }: Path): number {
  return connector.events().filter(({ event }) => event === 'reconnected').length
}
