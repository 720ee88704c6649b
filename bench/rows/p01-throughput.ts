import { spawn } from 'node:child_process'
import { POSTERN, posternEnv } from '../../test/support/postern.ts'
import { CHAIN_NEEDS, openChains } from '../chains.ts'
import type { Path } from '../path.ts'
import { Figures, type Measured, type Row } from '../row.ts'
import { connectLocal, type Direction, transfer } from '../service.ts'

const MIB = 1024 * 1024
const DIRECTIONS: readonly Direction[] = ['up', 'down']
const PEERS = ['stunnel', 'ssh']
const FLOWS = [1, 8]

/** The whole way: a local port (or stdin and stdout), edge, connector, service. */
export const throughput: Row = {
  id: 'P1',
  title: 'throughput over the full path',
  needs: CHAIN_NEEDS,
  async run(scale, say): Promise<Measured> {
    const bytes = (scale.quick ? 8 : 512) * MIB
    await using chains = await openChains()
    const figures = new Figures()
    for (let round = 0; round < scale.rounds; round++) {
      say(`round ${round + 1} of ${scale.rounds}`)
      for (const flows of FLOWS) {
        for (const direction of DIRECTIONS) {
          for (const [name, port] of Object.entries(chains.ports)) {
            const mbits = await measure(direction, { bytes, flows, port })
            figures.add(nameOf(name, flows, direction), 'Mbit/s', mbits)
          }
        }
      }
      for (const direction of DIRECTIONS) {
        figures.add(
          `postern by stdio, ${direction}`,
          'Mbit/s',
          await measureStdio(chains.path, direction, bytes),
        )
      }
    }
    return { figures: figures.all(), goals: goalsOf(figures) }
  },
}

function nameOf(chain: string, flows: number, direction: Direction): string {
  return `${chain}, ${flows === 1 ? '1 flow' : `${flows} flows`}, ${direction}`
}

function goalsOf(figures: Figures): Measured['goals'] {
  return FLOWS.flatMap((flows) => {
    const worse = (chains: readonly string[]) =>
      Math.min(
        ...DIRECTIONS.map((direction) => {
          const of = (chain: string) => figures.median(nameOf(chain, flows, direction))
          return of('postern') / Math.max(...chains.map(of))
        }),
      )
    const what = flows === 1 ? '1 flow' : `${flows} flows`
    const goal = { unit: '×', relation: 'at least' } as const
    return [
      {
        ...goal,
        text: `${what}, worse direction against the best of ${PEERS.join(' and ')}`,
        value: worse(PEERS),
        limit: 1.5,
      },
      {
        ...goal,
        text: `${what}, worse direction against bare Node`,
        value: worse(['bare Node']),
        limit: 0.95,
      },
    ]
  })
}

interface Load {
  bytes: number
  flows: number
  port: number
}

async function measure(direction: Direction, { bytes, flows, port }: Load): Promise<number> {
  const sockets = await Promise.all(Array.from({ length: flows }, () => connectLocal(port)))
  const started = performance.now()
  await Promise.all(
    sockets.map((socket) => transfer(direction, bytes / flows, { input: socket, output: socket })),
  )
  const mbits = megabits(bytes, performance.now() - started)
  for (const socket of sockets) socket.destroy()
  return mbits
}

async function measureStdio({ home, host }: Path, direction: Direction, bytes: number): Promise<number> {
  const child = spawn(process.execPath, [POSTERN, 'client', 'tls', '--host', host], {
    env: posternEnv({ home }),
    stdio: ['pipe', 'pipe', 'inherit'],
  })
  child.stdin.on('error', () => {})
  const started = performance.now()
  await transfer(direction, bytes, { input: child.stdin, output: child.stdout })
  const mbits = megabits(bytes, performance.now() - started)
  child.kill('SIGKILL')
  return mbits
}

function megabits(bytes: number, ms: number): number {
  return (bytes * 8) / ms / 1_000
}
