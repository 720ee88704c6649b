import { readFileSync } from 'node:fs'
import type { Socket } from 'node:net'
import { endianness, release } from 'node:os'

/** Which user of this machine is behind a loopback connection. TCP does not say; Linux lists it in /proc/net. */

export interface Endpoint {
  address: string
  port: number
}

/** As the kernel's lists give it, `inode` 0 when no process holds the socket any more. */
interface ListedSocket {
  state: string
  uid: number
  inode: number
}

/** Closed, with bytes on the way: the last moment at which the kernel may still know whose it was. */
const FIN_WAIT1 = '04'
/** A Linux that was seen to remember the user of a closed socket; older ones give it to root. */
const REMEMBERS_SINCE = [6, 18] as const

const LISTS = ['/proc/net/tcp', '/proc/net/tcp6']

/** The kernel hands a list over in pieces, while sockets come and go. Once, on a busy machine, a program that was there was
 *  not found; why is not known. Looking again admits nobody who is not listed. */
const LOOKS = 2

/** @returns undefined when it cannot be known: the program has closed its socket already, and what is left of it
 *  belongs to root in the kernel's list, whoever it was */
export function findLocalUser(
  peer: Endpoint,
  here: Endpoint,
  readLists: () => readonly string[] = () => LISTS.map(readList),
  kernel: string = release(),
): number | undefined {
  for (let look = 0; look < LOOKS; look++) {
    const found = readLists().flatMap((list) => findSocket(list, peer, here))
    const [socket] = found
    if (socket && found.every((other) => isSame(socket, other))) return userOf(socket, kernel)
  }
  return undefined
}

function isSame(one: ListedSocket, other: ListedSocket): boolean {
  return one === other || (one.inode !== 0 && one.inode === other.inode && one.uid === other.uid)
}

function userOf({ state, uid, inode }: ListedSocket, kernel: string): number | undefined {
  const isRemembered = inode !== 0 || uid !== 0 || (state === FIN_WAIT1 && remembersUsers(kernel))
  return isRemembered ? uid : undefined
}

/** @param kernel as `uname -r` prints it */
function remembersUsers(kernel: string): boolean {
  const [major = 0, minor = 0] = kernel.split('.', 2).map(Number.parseFloat)
  const [sinceMajor, sinceMinor] = REMEMBERS_SINCE
  return major > sinceMajor || (major === sinceMajor && minor >= sinceMinor)
}

export function endpointsOf(socket: Socket): [peer: Endpoint, here: Endpoint] {
  const { remoteAddress = '', remotePort = 0, localAddress = '', localPort = 0 } = socket
  return [
    { address: remoteAddress, port: remotePort },
    { address: localAddress, port: localPort },
  ]
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
    const [state = '', , , , uid, , inode] = rest.trim().split(/\s+/)
    sockets.push({ state, uid: Number(uid), inode: Number(inode) })
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
