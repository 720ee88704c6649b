import { CHAIN_NEEDS, openChains } from '../chains.ts'
import { Figures, type Measured, type Row } from '../row.ts'
import { connectLocal, openEcho } from '../service.ts'
import { median, percentile } from '../statistics.ts'

const WARM_UP = 200

/** One byte there and back, over and over, through a connection that stands. */
export const roundTrip: Row = {
  id: 'P11',
  title: 'round trip of one byte',
  needs: CHAIN_NEEDS,
  async run(scale, say): Promise<Measured> {
    const pings = scale.quick ? 50 : 3_000
    await using chains = await openChains()
    const ports = { direct: chains.path.service.port, ...chains.ports }
    const figures = new Figures()
    for (let round = 0; round < scale.rounds; round++) {
      say(`round ${round + 1} of ${scale.rounds}`)
      for (const [name, port] of Object.entries(ports)) {
        const microseconds = await pingFor(port, pings)
        figures.add(`${name}, median`, 'µs', median(microseconds))
        figures.add(`${name}, p99`, 'µs', percentile(microseconds, 0.99))
      }
    }
    const added = (name: string) => figures.median(`${name}, median`) - figures.median('direct, median')
    return {
      figures: figures.all(),
      goals: [
        {
          text: 'added round trip against bare Node',
          value: added('postern') / added('bare Node'),
          unit: '×',
          relation: 'at most',
          limit: 1.1,
        },
      ],
    }
  },
}

async function pingFor(port: number, count: number): Promise<number[]> {
  const socket = await connectLocal(port)
  const ping = openEcho(socket, (bytes) => void socket.write(bytes))
  for (let turn = 0; turn < WARM_UP; turn++) await ping()
  const microseconds: number[] = []
  for (let turn = 0; turn < count; turn++) {
    const started = performance.now()
    await ping()
    microseconds.push((performance.now() - started) * 1_000)
  }
  socket.destroy()
  return microseconds
}
