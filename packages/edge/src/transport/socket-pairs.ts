import { once } from 'node:events'
import net, { type AddressInfo, type Socket } from 'node:net'

/** Two ends of a connection of this process with itself. TLS and all that stands behind it work on sockets of the kernel, and
 *  what comes inside a WebSocket is to be no different from there on. */
export interface SocketPairs {
  open(): Promise<{ near: Socket; far: Socket }>
  close(): void
}

/** Who of this machine connects to the port by himself is not waited for, and let go. */
const UNKNOWN_MS = 1_000

export async function openSocketPairs(highWaterMark: number): Promise<SocketPairs> {
  const arrived = new Map<number, Socket>()
  const waiting = new Map<number, (socket: Socket) => void>()
  const server = net.createServer({ allowHalfOpen: true, noDelay: true, highWaterMark }, (socket) => {
    socket.on('error', () => undefined)
    const port = socket.remotePort ?? 0
    const take = waiting.get(port)
    if (take) return take(socket)
    arrived.set(port, socket)
    const timer = setTimeout(() => socket.destroy(), UNKNOWN_MS).unref()
    socket.once('close', () => {
      clearTimeout(timer)
      if (arrived.get(port) === socket) arrived.delete(port)
    })
    socket.once('taken', () => clearTimeout(timer))
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  return {
    async open() {
      const near = net.connect({
        port,
        host: '127.0.0.1',
        allowHalfOpen: true,
        noDelay: true,
        highWaterMark,
      } as net.NetConnectOpts)
      near.on('error', () => undefined)
      await once(near, 'connect')
      const own = near.localPort!
      const known = arrived.get(own)
      if (known) {
        arrived.delete(own)
        known.emit('taken')
        return { near, far: known }
      }
      const far = await new Promise<Socket>((resolve, reject) => {
        const gone = () => reject(new Error('a connection to itself was lost'))
        near.once('close', gone)
        waiting.set(own, (socket) => {
          near.off('close', gone)
          resolve(socket)
        })
      }).finally(() => waiting.delete(own))
      return { near, far }
    },
    close: () => server.close(),
  }
}
