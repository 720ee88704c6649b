import { readFileSync } from 'node:fs'
import { endianness } from 'node:os'

/** Which user of this machine is behind a loopback connection. TCP does not say; Linux lists it in /proc/net. */

export interface Endpoint {
  address: string
  port: number
}

/** As the kernel's lists give it, `inode` 0 when no process holds the socket any more. */
interface ListedSocket {
  uid: number
  inode: number
}

const LISTS = ['/proc/net/tcp', '/proc/net/tcp6']

/** @returns undefined when it cannot be known: the program has closed its socket already, and what is left of it
 *  belongs to root in the kernel's list, whoever it was */
export function findLocalUser(
  peer: Endpoint,
  here: Endpoint,
  lists: readonly string[] = LISTS.map(readList),
): number | undefined {
  const found = lists.flatMap((list) => findSocket(list, peer, here))
  const [socket] = found
  if (!socket || found.length > 1) return undefined
  return socket.inode === 0 && socket.uid === 0 ? undefined : socket.uid
}

export function isLoopback(address: string): boolean {
  return /^(::ffff:)?127\./.test(address) || address === '::1'
}

function readList(file: string): string {
  try {
    return readFileSync(file, 'latin1')
  } catch {
    return '' // no IPv6 on this machine
  }
}

/** A row: `sl local_address rem_address st tx:rx tr:when retrnsmt uid timeout inode …`, both addresses in hex. */
function findSocket(list: string, peer: Endpoint, here: Endpoint): ListedSocket[] {
  const remotes = spellings(here)
  return spellings(peer).flatMap((local, index) => rowsAfter(list, ` ${local} ${remotes[index]} `))
}

function rowsAfter(list: string, start: string): ListedSocket[] {
  const sockets: ListedSocket[] = []
  for (let at = list.indexOf(start); at >= 0; at = list.indexOf(start, at + 1)) {
    const lineEnd = list.indexOf('\n', at)
    const rest = list.slice(at + start.length, lineEnd < 0 ? undefined : lineEnd)
    const [, , , , uid, , inode] = rest.trim().split(/\s+/)
    sockets.push({ uid: Number(uid), inode: Number(inode) })
  }
  return sockets
}

/** A loopback address as the lists write it. One of IPv4 stands in the list of IPv6 too, when its program uses a
 *  socket for both. */
function spellings({ address, port }: Endpoint): string[] {
  const suffix = `:${port.toString(16).toUpperCase().padStart(4, '0')}`
  if (address === '::1') return [toWords([...ZEROS, 0, 0, 0, 0, 0, 1]) + suffix]
  const bytes = address.replace('::ffff:', '').split('.').map(Number)
  return [toWords(bytes) + suffix, toWords([...ZEROS, 0xff, 0xff, ...bytes]) + suffix]
}

const ZEROS: readonly number[] = new Array(10).fill(0)

/** The kernel prints each four bytes as one number of this machine. */
function toWords(bytes: readonly number[]): string {
  const buffer = Buffer.from(bytes)
  if (endianness() === 'LE') buffer.swap32()
  return buffer.toString('hex').toUpperCase()
}
