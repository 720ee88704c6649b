import { once } from 'node:events'
import net, { type Socket } from 'node:net'
import type { Program } from '../../demo/program.ts'
import { type EventLine, readEvents, waitForEvent } from './event-lines.ts'
import { type PosternOptions, spawnPostern } from './postern.ts'

/** A running `postern client listen --json`. */
export interface Listener extends AsyncDisposable {
  /** The one that it took; NaN for a socket. */
  port: number
  program: Program
  events(): EventLine[]
  /** Waits for an event, also one that has been. */
  event(name: string, matches?: (event: EventLine) => boolean): Promise<EventLine>
}

/** @param local a port of its own choice when left out
 *  @param args more options of the command */
export async function startListener(
  options: { host: string; local?: string; args?: readonly string[] } & Pick<
    PosternOptions,
    'home' | 'browser' | 'env'
  >,
): Promise<Listener> {
  const { host, local = '0', args = [], ...postern } = options
  const program = spawnPostern(
    ['client', 'listen', '--host', host, '--local', local, '--json', ...args],
    postern,
  )
  const event: Listener['event'] = (name, matches) => waitForEvent(program, name, matches)
  const { port } = await event('ready').catch(async (error) => {
    await program.stop('SIGKILL')
    throw error
  })
  return {
    port: Number(port),
    program,
    events: () => readEvents(program),
    event,
    [Symbol.asyncDispose]: () => program[Symbol.asyncDispose](),
  }
}

/** A connection of a local program, with half-close.
 *  @param place a port, or the file of a socket */
export async function connectTo(place: number | string): Promise<Socket> {
  const where =
    typeof place === 'string' ? { path: place } : { port: place, host: '127.0.0.1', noDelay: true }
  const socket = net.connect({ ...where, allowHalfOpen: true })
  await once(socket, 'connect')
  return socket
}

/** Reads to the end. @returns how it ended, and everything that came */
export async function readToEnd(socket: Socket): Promise<{ bytes: Buffer; ending: string }> {
  const chunks: Buffer[] = []
  const ending = await new Promise<string>((resolve) => {
    socket.on('data', (chunk: Buffer) => chunks.push(chunk))
    socket.once('end', () => resolve('end'))
    socket.once('error', (error: NodeJS.ErrnoException) => resolve(error.code ?? error.message))
  })
  socket.destroy()
  return { bytes: Buffer.concat(chunks), ending }
}

/** How a connection ends that is not served. Its reset may arrive before it is known to stand. */
export async function endOfRefused(port: number): Promise<string> {
  return (await readToEnd(net.connect({ port, host: '127.0.0.1', allowHalfOpen: true }))).ending
}
