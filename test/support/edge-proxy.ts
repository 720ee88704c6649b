import { EventEmitter, once } from 'node:events'
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'
import { findFreePort } from '../../demo/free-port.ts'
import { type EdgeOptions, type EdgeProcess, startEdge } from './edge-process.ts'

/** A wire between people and their edge that a test can watch and cut: it sees when somebody sends something, and
 *  can keep the answers back from then on. */
export interface EdgeProxy extends AsyncDisposable {
  edge: EdgeProcess
  /** Resolves when something has been sent to the edge `count` times from now on (a handshake counts too). Its
   *  answer, and everything after it, does not come back before `release`. */
  holdAfter(count: number): Promise<void>
  /** Resolves when something is sent to the edge. */
  sent(): Promise<void>
  release(): void
}

/** Starts an edge that people know by the proxy's port. */
export async function startEdgeBehindProxy(options: EdgeOptions = {}): Promise<EdgeProxy> {
  const inner = options.port ?? (await findFreePort())
  const wire = new EventEmitter().setMaxListeners(0)
  const sockets = new Set<Socket>()
  const kept: (() => void)[] = []
  let isHeld = false
  let holdIn = Number.POSITIVE_INFINITY

  const onSent = () => {
    if (--holdIn === 0) isHeld = true
    wire.emit('sent')
  }
  const pass = (deliver: () => void) => {
    if (isHeld) kept.push(deliver)
    else deliver()
  }
  const server = createServer({ allowHalfOpen: true }, (near) => {
    const far = connect({ host: '127.0.0.1', port: inner, allowHalfOpen: true })
    for (const [socket, other] of [
      [near, far],
      [far, near],
    ] as const) {
      sockets.add(socket)
      socket.on('error', () => other.destroy())
      socket.on('close', () => {
        sockets.delete(socket)
        other.destroy()
      })
    }
    near.on('data', (chunk) => {
      onSent()
      far.write(chunk)
    })
    near.on('end', () => far.end())
    far.on('data', (chunk) => pass(() => near.write(chunk)))
    far.on('end', () => pass(() => near.end()))
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  const edge = await startEdge({ ...options, port: inner, config: { ...options.config, public_port: port } })

  return {
    edge,
    sent: async () => void (await once(wire, 'sent')),
    async holdAfter(count) {
      holdIn = count
      while (!isHeld) await once(wire, 'sent')
    },
    release() {
      isHeld = false
      holdIn = Number.POSITIVE_INFINITY
      for (const deliver of kept.splice(0)) deliver()
    },
    async [Symbol.asyncDispose]() {
      await edge[Symbol.asyncDispose]()
      for (const socket of sockets) socket.destroy()
      server.close()
      await once(server, 'close')
    },
  }
}
