import { once } from 'node:events'
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'

/** A man in the middle who can do what anybody on the path can: end the TCP connection towards the client cleanly,
 *  in the middle of TLS. */
export interface CuttingProxy extends AsyncDisposable {
  port: number
  endBare(): void
}

export async function startEdgeProxyCutting(edge: { port: number }): Promise<CuttingProxy> {
  const sockets = new Set<Socket>()
  const clients = new Set<Socket>()
  const server = createServer({ allowHalfOpen: true }, (near) => {
    const far = connect({ host: '127.0.0.1', port: edge.port, allowHalfOpen: true })
    clients.add(near)
    for (const socket of [near, far]) sockets.add(socket.on('error', () => {}))
    near.on('data', (chunk) => far.write(chunk))
    far.on('data', (chunk) => near.writable && near.write(chunk))
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    port: (server.address() as AddressInfo).port,
    endBare() {
      for (const near of clients) near.end()
    },
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy()
      server.close()
      await once(server, 'close')
    },
  }
}
