import { once } from 'node:events'
import tls from 'node:tls'
import { type Entrance, entranceOf, inTurns, openFlow } from '../client-flow.ts'
import { openPath } from '../path.ts'
import { startBareChain } from '../peers/bare-node.ts'
import { startHaproxy } from '../peers/haproxy.ts'
import { cpuOf } from '../processes.ts'
import { Figures, type Measured, type Row } from '../row.ts'
import { ECHO_ONE } from '../service.ts'

const AT_ONCE = 8

/** CPU of the process in the middle for one flow: handshake with a client certificate, one byte there and back, end.
 *  The edge also identifies, authorizes, records and has the connector's next data connection handshake. */
export const flowSetup: Row = {
  id: 'P3',
  title: 'CPU of the edge for one flow',
  needs: ['haproxy', 'openssl'],
  async run(scale, say): Promise<Measured> {
    const count = scale.quick ? 20 : 600
    await using opened = new AsyncDisposableStack()
    const path = opened.use(await openPath())
    const haproxy = opened.use(await startHaproxy(path.service.port))
    const bare = opened.use(await startBareChain(path.service.port))
    const entrance = entranceOf(path.edge, path.host, path.identity)
    const flows = async (many: number) => inTurns(many, AT_ONCE, async () => (await openFlow(entrance)).end())
    const plain = (at: Entrance) => (many: number) => inTurns(many, AT_ONCE, () => touch(at))
    const setups = [
      { name: 'postern edge', pid: path.edge.pid, run: flows },
      { name: 'haproxy', pid: haproxy.pid, run: plain(plainEntrance(haproxy.port, haproxy.context)) },
      {
        name: 'bare Node relay',
        pid: bare.relayPid,
        run: plain(plainEntrance(bare.relayPort, bare.context)),
      },
    ]
    for (const { run } of setups) await run(Math.ceil(count / 4)) // what the first ones load is not theirs
    const figures = new Figures()
    for (let round = 0; round < scale.rounds; round++) {
      say(`round ${round + 1} of ${scale.rounds}`)
      for (const { name, pid, run } of setups) {
        figures.add(name, 'ms CPU', ((await cpuOf(pid, () => run(count))) / count) * 1_000)
      }
    }
    return {
      figures: figures.all(),
      goals: [
        {
          text: 'one flow of the edge against one mTLS handshake of haproxy',
          value: figures.median('postern edge') / Math.max(figures.median('haproxy'), Number.EPSILON),
          unit: '×',
          relation: 'at most',
          limit: 1.5,
        },
      ],
    }
  },
}

function plainEntrance(port: number, context: tls.SecureContext): Entrance {
  return { port, context, serverName: 'localhost' }
}

/** A TLS connection without frames: one byte there and back. */
async function touch({ port, serverName, context }: Entrance): Promise<void> {
  const socket = tls.connect({ host: '127.0.0.1', port, servername: serverName, secureContext: context })
  socket.write(ECHO_ONE)
  await once(socket, 'data')
  socket.end()
  socket.resume()
  await once(socket, 'close')
}
