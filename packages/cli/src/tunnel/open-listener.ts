import { once } from 'node:events'
import net, { type Server } from 'node:net'
import { PosternError } from '@postern/shared/errors'
import { SOCKET_BUFFER_BYTES } from './dial-edge.ts'
import { formatLocal, type LocalPlace, type SocketFile } from './local-place.ts'
import type { Endpoint } from './local-user.ts'
import { claimSocketFile } from './socket-file.ts'

const KEEPALIVE_MS = 30_000

/** A server at this place that nobody is served by yet. A socket that is a file goes when the server closes.
 *  @param place port 0 takes any free one
 *  @throws LISTEN_FAILED when the place cannot be had */
export async function openListener(place: LocalPlace): Promise<Server> {
  const server = net.createServer({
    allowHalfOpen: true,
    pauseOnConnect: true,
    noDelay: true,
    keepAlive: true,
    keepAliveInitialDelay: KEEPALIVE_MS,
    highWaterMark: SOCKET_BUFFER_BYTES,
  })
  // each that it was handed over to waits for its end
  server.setMaxListeners(0)
  try {
    if ('path' in place) await listenAtFile(server, place)
    else await listenAtPort(server, place)
    return server
  } catch (cause) {
    if (cause instanceof PosternError) throw cause
    throw explainListenError(cause as NodeJS.ErrnoException, place)
  }
}

async function listenAtPort(server: Server, { address, port }: Endpoint): Promise<void> {
  server.listen({ host: address, port })
  await once(server, 'listening')
}

async function listenAtFile(server: Server, { path }: SocketFile): Promise<void> {
  using _claim = await claimSocketFile(path)
  const listening = once(server, 'listening')
  // the file is made inside of this call: nobody else can have opened it for a moment
  const umask = process.umask(0o177)
  try {
    server.listen({ path })
  } finally {
    process.umask(umask)
  }
  await listening
}

const REASONS: Readonly<Record<string, string>> = {
  EADDRINUSE: 'another program listens there',
  EACCES: 'this user may not',
  EPERM: 'this user may not',
  EADDRNOTAVAIL: 'this machine has no such address',
  ENOENT: 'there is no such folder',
  ENOTDIR: 'there is no such folder',
}

const FILE_HINT = 'name a file in a folder of your own, as in unix:/run/user/1000/db.sock'
const PORT_HINTS: Readonly<Record<string, string>> = {
  EACCES: 'ports below 1024 are for root on most systems: choose a higher one, or unix:PATH',
  EADDRNOTAVAIL: 'choose an address of this machine, as 127.0.0.1 or [::1]',
}

function explainListenError(cause: NodeJS.ErrnoException, place: LocalPlace): PosternError {
  const { code = '' } = cause
  const reason = REASONS[code] ?? cause.message
  const hint = 'path' in place ? FILE_HINT : PORT_HINTS[code]
  const where = 'path' in place ? formatLocal(place) : `${place.address}, port ${place.port}`
  return new PosternError('LISTEN_FAILED', `cannot listen on ${where}: ${reason}`, {
    cause,
    ...(hint === undefined ? {} : { hint }),
  })
}
