import { type AddressInfo, isIP, type Server } from 'node:net'
import path from 'node:path'
import { PosternError } from '@postern/shared/errors'
import { MAX_SOCKET_PATH_BYTES } from '../connector/target.ts'
import { type Endpoint, isLoopback } from './local-user.ts'

/** Where a listener stands on this machine: a port, or a socket that is a file. */
export type LocalPlace = Endpoint | SocketFile

export interface SocketFile {
  path: string
}

const UNIX = 'unix:'

/** `PORT`, `ADDRESS:PORT`, `[IPV6]:PORT` or `unix:PATH`; port 0 is any free one.
 *  @param folder where a relative path begins */
export function parseLocal(text: string, folder: string = process.cwd()): LocalPlace {
  if (text.startsWith(UNIX)) return parseSocketFile(text.slice(UNIX.length), folder)
  const [, v6, v4OrName, digits] = /^(?:(?:\[([^\]]*)\]|([^:]*)):)?(\d{1,5})$/.exec(text) ?? []
  const name = v6 ?? v4OrName ?? 'localhost'
  const address = name === 'localhost' ? '127.0.0.1' : name
  const port = Number(digits)
  const isAddress = isIP(address) === (v6 === undefined ? 4 : 6)
  if (digits !== undefined && port <= 65_535 && isAddress) return { address, port }
  throw new PosternError('USAGE_INVALID', `${JSON.stringify(text)} is not a local address`, {
    hint: 'write a port, an address of this machine with a port, or a file: 5432, 127.0.0.1:5432, [::1]:5432 or unix:PATH; port 0 takes any free one',
  })
}

function parseSocketFile(file: string, folder: string): SocketFile {
  if (process.platform === 'win32') {
    throw new PosternError('USAGE_INVALID', 'a listener on Windows is a port, not a file', {
      hint: 'write a port, as in 5432',
    })
  }
  const absolute = path.resolve(folder, file)
  // biome-ignore lint/suspicious/noControlCharactersInRegex: such a name could not be told to anybody
  if (file === '' || file.endsWith('/') || /[\u0000-\u001f]/.test(file)) {
    throw badSocketFile(file, 'does not name a file')
  }
  if (Buffer.byteLength(absolute) > MAX_SOCKET_PATH_BYTES) {
    throw badSocketFile(
      file,
      `has a path of more than ${MAX_SOCKET_PATH_BYTES} bytes, which no socket can have`,
    )
  }
  return { path: absolute }
}

function badSocketFile(file: string, why: string): PosternError {
  return new PosternError('USAGE_INVALID', `${JSON.stringify(UNIX + file)} ${why}`, {
    hint: 'write it as in unix:/run/user/1000/carbon.sock',
  })
}

/** As `--local` takes it. */
export function formatLocal(place: LocalPlace): string {
  if ('path' in place) return UNIX + place.path
  const { address, port } = place
  return `${address.includes(':') ? `[${address}]` : address}:${port}`
}

/** Where it listens, with the port that port 0 became. */
export function placeOf(server: Server): LocalPlace {
  const place = server.address() as AddressInfo | string
  return typeof place === 'string' ? { path: place } : { address: place.address, port: place.port }
}

/** @throws USAGE_INVALID for an address that other machines reach */
export function refusePublicAddress(place: LocalPlace, allowance: string): void {
  if ('path' in place || isLoopback(place.address)) return
  throw new PosternError('USAGE_INVALID', `${place.address} can be reached by other machines`, {
    hint: `listen on 127.0.0.1 or [::1]; ${allowance} serves whoever reaches the port, in your name`,
  })
}
