import { createHash, type Hash } from 'node:crypto'
import { EventEmitter, once } from 'node:events'
import { type AddressInfo, createServer, type Socket } from 'node:net'
import { setTimeout as pause } from 'node:timers/promises'

/** Private services to stand behind a connector. Each listens on a loopback port and keeps a record of every
 *  connection, so that a test can say what the service saw, or that it saw nothing. */

const CHUNK_BYTES = 64 * 1024

/** What the service saw of one connection. */
export interface ServedConnection {
  socket: Socket
  bytesRead: number
  /** SHA-256 of everything read so far. */
  hash(): string
  /** `end`: the peer sent a clean end of file. `reset`: it was cut. undefined: neither yet. */
  ending: 'end' | 'reset' | undefined
  /** Settles with `ending` as soon as there is one. */
  ended: Promise<'end' | 'reset'>
  /** Settles when the socket is closed. */
  closed: Promise<void>
}

export interface TcpService extends AsyncDisposable {
  port: number
  /** Every connection ever accepted. */
  connections: ServedConnection[]
  /** Waits for the connection with this index, 0 for the first. */
  connection(index?: number): Promise<ServedConnection>
}

type Serve = (connection: ServedConnection) => void | Promise<void>

/** A service with a behaviour of your own. `serve` writes; what arrives is read, counted and hashed for you unless
 *  `read` is false.
 *  @param address of this machine, where others reach it */
export async function startTcpService(
  serve: Serve,
  { read = true, address = '127.0.0.1' } = {},
): Promise<TcpService> {
  const connections: ServedConnection[] = []
  const arrivals = new EventEmitter().setMaxListeners(0)
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    const connection = recordConnection(socket, read)
    connections.push(connection)
    arrivals.emit('connection')
    void (async () => serve(connection))().catch(() => socket.destroy())
  })
  server.listen(0, address)
  await once(server, 'listening')
  return {
    port: (server.address() as AddressInfo).port,
    connections,
    async connection(index = 0) {
      while (connections.length <= index) await once(arrivals, 'connection')
      return connections[index]!
    },
    async [Symbol.asyncDispose]() {
      for (const { socket } of connections) socket.destroy()
      server.close()
      await once(server, 'close')
    },
  }
}

function recordConnection(socket: Socket, read: boolean): ServedConnection {
  const hash: Hash = createHash('sha256')
  const { promise: ended, resolve: end } = Promise.withResolvers<'end' | 'reset'>()
  const { promise: closed, resolve: close } = Promise.withResolvers<void>()
  const connection: ServedConnection = {
    socket,
    bytesRead: 0,
    hash: () => hash.copy().digest('hex'),
    ending: undefined,
    ended,
    closed,
  }
  const settle = (ending: 'end' | 'reset') => {
    connection.ending ??= ending
    end(connection.ending)
  }
  const count = (chunk: Buffer) => {
    connection.bytesRead += chunk.length
    hash.update(chunk)
  }
  if (read) socket.on('data', count)
  else socket.pause()
  socket.on('end', () => settle('end'))
  socket.on('error', () => settle('reset'))
  socket.on('close', () => {
    settle('reset')
    close()
  })
  return connection
}

/** Sends everything back, and its end too. */
export function startEcho(address?: string): Promise<TcpService> {
  return startTcpService(({ socket }) => void socket.pipe(socket), address === undefined ? {} : { address })
}

/** Says `greeting` to whoever connects, then echoes. */
export function startGreeter(greeting: string): Promise<TcpService> {
  return startTcpService(({ socket }) => {
    socket.write(greeting)
    socket.pipe(socket)
  })
}

/** Reads until the end of file, waits, then answers `answerBytes` of `patternChunks` and ends. */
export function startLateAnswer(options: { pauseMs: number; answerBytes: number }): Promise<TcpService> {
  return startTcpService(async ({ socket, ended }) => {
    if ((await ended) !== 'end') return
    await pause(options.pauseMs)
    await sendPattern(socket, options.answerBytes)
  })
}

/** Reads and counts, says nothing, and ends when the other side has. */
export function startSink(): Promise<TcpService> {
  return startTcpService(({ socket }) => void socket.on('end', () => socket.end()))
}

/** Sends `bytes` of `patternChunks` and ends. Its hash is `patternHash(bytes)`. */
export function startSource(bytes: number): Promise<TcpService> {
  return startTcpService(({ socket }) => sendPattern(socket, bytes))
}

/** Says `farewell` and closes first, at once. */
export function startClosesFirst(farewell: string): Promise<TcpService> {
  return startTcpService(({ socket }) => void socket.end(farewell))
}

/** Accepts and never reads a byte: back-pressure itself. */
export function startNeverReads(): Promise<TcpService> {
  return startTcpService(() => {}, { read: false })
}

/** Reads at most `bytesPerSecond`, in even steps, and ends when the other side has. */
export function startSlowReader(bytesPerSecond: number): Promise<TcpService> {
  const stepMs = 50
  const stepBytes = Math.floor((bytesPerSecond * stepMs) / 1000)
  const serve: Serve = async (connection) => {
    const { socket } = connection
    socket.on('end', () => socket.end())
    for (let allowed = stepBytes; !socket.destroyed && !connection.ending; allowed += stepBytes) {
      readUpTo(connection, allowed)
      await pause(stepMs)
    }
  }
  return startTcpService(serve, { read: false })
}

function readUpTo(connection: ServedConnection, totalBytes: number): void {
  const { socket } = connection
  while (connection.bytesRead < totalBytes) {
    const wanted = Math.min(totalBytes - connection.bytesRead, socket.readableLength)
    const chunk = socket.read(wanted > 0 ? wanted : undefined) as Buffer | null
    if (!chunk) return
    connection.bytesRead += chunk.length
  }
}

/** The bytes that sources send: every 8 bytes their own position, so that a missing, doubled or swapped piece
 *  changes the hash. */
export function* patternChunks(bytes: number): Generator<Buffer> {
  for (let at = 0; at < bytes; at += CHUNK_BYTES) {
    const chunk = Buffer.allocUnsafe(CHUNK_BYTES)
    for (let offset = 0; offset < CHUNK_BYTES; offset += 8) {
      chunk.writeUInt32LE(((at + offset) / 8) >>> 0, offset)
      chunk.writeUInt32LE((0x9e3779b9 ^ (at + offset)) >>> 0, offset + 4)
    }
    yield chunk.subarray(0, Math.min(CHUNK_BYTES, bytes - at))
  }
}

/** SHA-256, in hex, of that many bytes of the pattern. */
export function patternHash(bytes: number): string {
  const hash = createHash('sha256')
  for (const chunk of patternChunks(bytes)) hash.update(chunk)
  return hash.digest('hex')
}

async function sendPattern(socket: Socket, bytes: number): Promise<void> {
  let wake = () => {}
  socket.on('drain', () => wake())
  socket.on('close', () => wake())
  for (const chunk of patternChunks(bytes)) {
    if (socket.destroyed) return
    if (!socket.write(chunk)) await new Promise<void>((resolve) => (wake = resolve))
  }
  socket.end()
}
