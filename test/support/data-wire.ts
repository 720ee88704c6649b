import { once } from 'node:events'
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'
import { resetSocket } from '@postern/shared/stream/reset-socket'
import { findFreePort } from '../../demo/free-port.ts'
import { type EdgeProcess, startEdge } from './edge-process.ts'

/** A wire between everybody and their edge that can lose the data connections of connectors, and only those: the
 *  ClientHello names their protocol in the clear. */
export interface DataWire extends AsyncDisposable {
  edge: EdgeProcess
  /** Ends all data connections at both ends: with a reset, or with the FIN of somebody who closes. */
  cutData(how: 'reset' | 'fin'): void
}

export async function startEdgeOnDataWire(config: Record<string, unknown>): Promise<DataWire> {
  const inner = await findFreePort()
  const sockets = new Set<Socket>()
  const data = new Set<readonly [near: Socket, far: Socket]>()
  const server = createServer({ allowHalfOpen: true }, (near) => {
    const far = connect({ host: '127.0.0.1', port: inner, allowHalfOpen: true })
    const wire = [near, far] as const
    for (const [socket, other] of [wire, [far, near] as const]) {
      sockets.add(socket)
      socket.on('error', () => {})
      socket.on('data', (chunk) => other.write(chunk))
      socket.on('end', () => other.end())
      socket.on('close', () => {
        sockets.delete(socket)
        data.delete(wire)
        other.destroy()
      })
    }
    near.once('data', (hello) => {
      if (hello.includes('postern-data/1')) data.add(wire)
    })
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  const edge = await startEdge({ port: inner, config: { ...config, public_port: port } })
  return {
    edge,
    cutData(how) {
      for (const socket of [...data].flat()) {
        if (how === 'reset') resetSocket(socket)
        else socket.end()
      }
      data.clear()
    },
    async [Symbol.asyncDispose]() {
      await edge[Symbol.asyncDispose]()
      for (const socket of sockets) socket.destroy()
      server.close()
      await once(server, 'close')
    },
  }
}
