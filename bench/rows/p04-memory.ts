import { once } from 'node:events'
import tls from 'node:tls'
import { entranceOf, inTurns, openFlows } from '../client-flow.ts'
import { openPath, type Path } from '../path.ts'
import { type BareChain, startBareChain } from '../peers/bare-node.ts'
import { settledKib } from '../processes.ts'
import { Figures, type Measured, type Row } from '../row.ts'
import { ECHO_ONE } from '../service.ts'

/** Resident memory that each idle flow adds to the process in the middle, with TLS on both of its sides. */
export const memory: Row = {
  id: 'P4',
  title: 'memory of the edge for one idle flow',
  needs: ['openssl'],
  openFiles: 6_000,
  async run(scale, say): Promise<Measured> {
    const count = scale.quick ? 20 : 2_000
    const figures = new Figures()
    say(`${count} flows through the edge`)
    await using path = await openPath()
    figures.add('postern edge', 'KiB', await perFlow(path, count))
    say(`${count} connections through bare Node`)
    await using bare = await startBareChain(path.service.port)
    figures.add('bare Node relay', 'KiB', await perConnection(bare, count))
    return {
      figures: figures.all(),
      goals: [
        {
          text: 'one idle flow',
          value: figures.median('postern edge'),
          unit: 'KiB',
          relation: 'at most',
          limit: 100,
        },
      ],
      notes: [`${count} flows, after ${count / 10} that loaded and warmed up what the first ones need.`],
    }
  },
}

async function perFlow({ edge, host, identity }: Path, count: number): Promise<number> {
  const entrance = entranceOf(edge, host, identity)
  const first = await openFlows(entrance, count / 10)
  const before = await settledKib(edge.pid)
  const flows = await openFlows(entrance, count)
  const after = await settledKib(edge.pid)
  for (const flow of [...first, ...flows]) flow.destroy()
  return (after - before) / count
}

async function perConnection({ relayPid, relayPort, context }: BareChain, count: number): Promise<number> {
  const sockets: tls.TLSSocket[] = []
  const open = (many: number) =>
    inTurns(many, 16, async () => {
      const options = { host: '127.0.0.1', port: relayPort, servername: 'localhost', secureContext: context }
      const socket = tls.connect(options)
      sockets.push(socket)
      socket.write(ECHO_ONE)
      await once(socket, 'data')
    })
  await open(count / 10)
  const before = await settledKib(relayPid)
  await open(count)
  const after = await settledKib(relayPid)
  for (const socket of sockets) socket.destroy()
  return (after - before) / count
}
