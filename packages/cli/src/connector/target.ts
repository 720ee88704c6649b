import { isIPv4, isIPv6 } from 'node:net'
import { PosternError } from '@postern/shared/errors'
import { formatAddress } from '@postern/shared/ip-address'

/** Where a connector's flows go. Known to the connector only: the edge never hears it. */
export type Target = TcpTarget | UnixTarget

export interface TcpTarget {
  host: string
  port: number
}

export interface UnixTarget {
  path: string
}

const HINT = 'write it as HOST:PORT, [IPV6]:PORT or unix:/PATH, for example db.internal:5432'
const HOST_NAME = /^(?=.{1,253}$)[a-z0-9_](?:[a-z0-9_.-]*[a-z0-9_])?\.?$/i
/** Of the kernel's `sun_path`: a longer one is cut off by some systems, and leads to another socket. */
export const MAX_SOCKET_PATH_BYTES: number = process.platform === 'linux' ? 107 : 103

/** @param text `HOST:PORT`, `[IPV6]:PORT` or `unix:/PATH`
 *  @throws USAGE_INVALID with what is wrong with it */
export function parseTarget(text: string): Target {
  if (text.startsWith('unix:')) return { path: readSocketPath(text) }
  const [, ipv6, name, digits] = /^(?:\[([^\]]*)\]|([^:[\]]*)):(\d{1,5})$/.exec(text) ?? []
  const port = Number(digits)
  if (digits === undefined) throw bad(text, explainShape(text))
  if (port < 1 || port > 65_535) throw bad(text, `has the port ${port}: one is a number from 1 to 65535`)
  if (ipv6 !== undefined && !isIPv6(ipv6)) throw bad(text, 'has no IPv6 address in its brackets')
  if (name !== undefined && !isHost(name)) throw bad(text, 'has neither a host name nor an IP address')
  return { host: (ipv6 ?? name)!, port }
}

/** As `parseTarget` reads it. */
export function describeTarget(target: Target): string {
  if ('path' in target) return `unix:${target.path}`
  return formatAddress(target.host, target.port)
}

function readSocketPath(text: string): string {
  const path = text.slice('unix:'.length)
  if (!path.startsWith('/')) throw bad(text, 'has no absolute path after unix:')
  if (path.includes('\0')) throw bad(text, 'has a NUL in its path')
  if (Buffer.byteLength(path) > MAX_SOCKET_PATH_BYTES) {
    throw bad(text, `has a path of more than ${MAX_SOCKET_PATH_BYTES} bytes, which no socket can have`)
  }
  return path
}

function isHost(name: string): boolean {
  // 10.0.0.256 is no name either
  return isIPv4(name) || (HOST_NAME.test(name) && !/^[\d.]+$/.test(name))
}

function explainShape(text: string): string {
  if (text.includes('://')) return 'is a URL, and a target has no scheme'
  if (isIPv6(text) || /^[\da-f:.]*:[\da-f:.]*:[\da-f:.]*$/i.test(text))
    return 'is an IPv6 address without brackets'
  if (!/:\d*$/.test(text)) return 'has no port'
  return 'is no target'
}

function bad(text: string, why: string): PosternError {
  const shown = text.length > 120 ? `${text.slice(0, 120)}…` : text
  return new PosternError('USAGE_INVALID', `the target ${JSON.stringify(shown)} ${why}`, { hint: HINT })
}
