import { once } from 'node:events'
import net, { type AddressInfo, type Server, type Socket } from 'node:net'
import type { Readable, Writable } from 'node:stream'

/** The service at the end of every chain, and what a client says to it. Nothing depends on an end of file: not every
 *  peer carries half-close. A connection begins with a letter and a number of 8 bytes. */

const HEADER_BYTES = 9
const CHUNK = Buffer.alloc(256 * 1024, 7)

/** Counts what comes, and says one byte when the number is reached. */
const TAKE = 't'
/** Sends so many bytes. */
const GIVE = 'g'
/** Sends everything back. */
const ECHO = 'e'

export interface BenchService extends AsyncDisposable {
  port: number
  /** Connections that are open now. */
  open(): number
}

export async function startService(): Promise<BenchService> {
  const sockets = new Set<Socket>()
  const server = net.createServer({ allowHalfOpen: true, noDelay: true }, (socket) => {
    sockets.add(socket)
    socket.on('close', () => sockets.delete(socket))
    socket.on('error', () => {})
    socket.on('end', () => socket.end())
    readHeader(socket)
  })
  return {
    port: await listen(server),
    open: () => sockets.size,
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy()
      server.close()
    },
  }
}

export async function listen(server: Server): Promise<number> {
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return (server.address() as AddressInfo).port
}

function readHeader(socket: Socket): void {
  let head = Buffer.alloc(0)
  const onData = (chunk: Buffer) => {
    head = Buffer.concat([head, chunk])
    if (head.length < HEADER_BYTES) return
    socket.off('data', onData)
    const count = Number(head.readBigUInt64LE(1))
    serve(socket, String.fromCharCode(head[0]!), { count, rest: head.subarray(HEADER_BYTES) })
  }
  socket.on('data', onData)
}

function serve(socket: Socket, letter: string, { count, rest }: { count: number; rest: Buffer }): void {
  if (letter === GIVE) return void pump(socket, count)
  const take = countTo(count, () => socket.write('.'))
  const onData = letter === TAKE ? take : (chunk: Buffer) => void socket.write(chunk)
  if (rest.length > 0) onData(rest)
  socket.on('data', onData)
}

function countTo(count: number, done: () => void): (chunk: Buffer) => void {
  let left = count
  return (chunk) => {
    left -= chunk.length
    if (left <= 0) done()
  }
}

async function pump(output: Writable, count: number): Promise<void> {
  for (let left = count; left > 0 && !output.destroyed; left -= CHUNK.length) {
    if (!output.write(left < CHUNK.length ? CHUNK.subarray(0, left) : CHUNK)) await once(output, 'drain')
  }
}

function header(letter: string, count = 0): Buffer {
  const bytes = Buffer.alloc(HEADER_BYTES)
  bytes.write(letter, 'latin1')
  bytes.writeBigUInt64LE(BigInt(count), 1)
  return bytes
}

/** What a client sends to hear one byte. */
export const ECHO_ONE: Buffer = Buffer.concat([header(ECHO), Buffer.from('.')])

export type Direction = 'up' | 'down'

/** Sends or fetches so many bytes over a fresh connection. @returns when all of them have arrived */
export function transfer(
  direction: Direction,
  bytes: number,
  { input, output }: { input: Writable; output: Readable },
): Promise<void> {
  const done = new Promise<void>((resolve, reject) => {
    output.on('data', countTo(direction === 'up' ? 1 : bytes, resolve))
    output.once('end', () => reject(new Error('the connection ended before all bytes had arrived')))
    output.once('error', reject)
    input.once('error', reject)
  })
  input.write(header(direction === 'up' ? TAKE : GIVE, bytes))
  if (direction === 'down') return done
  // a chain that fails rejects `done`; the pump then waits for a drain that does not come
  void pump(input, bytes).catch(() => {})
  return done
}

/** A connection of a local program. */
export async function connectLocal(port: number): Promise<Socket> {
  const socket = net.connect({ port, host: '127.0.0.1', noDelay: true, allowHalfOpen: true })
  await once(socket, 'connect')
  return socket
}

/** Makes an echo of a fresh connection. @returns what sends one byte and waits until it is back */
export function openEcho(output: Readable, write: (bytes: Buffer) => void): () => Promise<void> {
  let resolve = () => {}
  let reject: (error: Error) => void = () => {}
  output.on('data', () => resolve())
  output.once('end', () => reject(new Error('the echo ended')))
  output.once('error', (error) => reject(error))
  let isFirst = true
  return () => {
    const back = new Promise<void>((onBack, onLost) => {
      resolve = onBack
      reject = onLost
    })
    write(isFirst ? ECHO_ONE : CHUNK.subarray(0, 1))
    isFirst = false
    return back
  }
}
