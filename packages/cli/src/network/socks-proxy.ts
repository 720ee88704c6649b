import { PosternError } from '@postern/shared/errors'
import type { ProxyServer } from './choose-proxy.ts'
import type { Place } from './open-tcp.ts'
import { describeProxy, loginRequired, type ProxyTalk, type ReadAnswer } from './proxy-talk.ts'

/** SOCKS 5 (RFC 1928) with user name and password (RFC 1929). The proxy looks the name up. */

const VERSION = 5
const LOGIN_VERSION = 1
const METHOD = { none: 0, password: 2, noneOfThem: 255 } as const
const CONNECT = 1
const ADDRESS = { v4: 1, name: 3, v6: 4 } as const

/** RFC 1928 §6 */
const REFUSALS: Readonly<Record<number, string>> = {
  1: 'it failed, and does not say why',
  2: 'its rules do not allow it',
  3: 'there is no route to its network',
  4: 'it cannot be reached, or its name is unknown there',
  5: 'nothing listens there',
  6: 'it does not answer',
  7: 'it makes no connections for others',
  8: 'it looks up no names',
}

/** @throws PROXY_LOGIN_REQUIRED · PROXY_REFUSED · what `talk` throws */
export async function askSocksProxy(
  talk: ProxyTalk,
  proxy: ProxyServer,
  { host, port }: Place,
): Promise<void> {
  const { credentials } = proxy
  const methods = credentials ? [METHOD.none, METHOD.password] : [METHOD.none]
  const method = await talk.ask(Buffer.from([VERSION, methods.length, ...methods]), readMethod)
  if (method === METHOD.noneOfThem) throw loginRequired(proxy)
  if (method === METHOD.password && credentials) {
    const { name, password } = credentials
    const login = Buffer.concat([Buffer.from([LOGIN_VERSION]), counted(name), counted(password)])
    if ((await talk.ask(login, readLoginResult)) !== 0) throw loginRequired(proxy)
  } else if (method !== METHOD.none) {
    throw new PosternError('PROXY_INVALID', `${describeProxy(proxy)} chose a way in that nobody offered`)
  }
  const portBytes = Buffer.from([port >> 8, port & 0xff])
  const request = Buffer.concat([Buffer.from([VERSION, CONNECT, 0, ADDRESS.name]), counted(host), portBytes])
  const code = await talk.ask(request, readConnectReply)
  if (code === 0) return
  const reason = REFUSALS[code] ?? `it answered ${code}`
  throw new PosternError(
    'PROXY_REFUSED',
    `${describeProxy(proxy)} does not connect to ${host}:${port}: ${reason}`,
  )
}

function counted(text: string): Buffer {
  const bytes = Buffer.from(text)
  return Buffer.concat([Buffer.from([bytes.length]), bytes])
}

/** Version, method. */
export function readMethod(bytes: Buffer): ReadAnswer<number> {
  return readPair(bytes, VERSION)
}

/** Version of the login, 0 for yes. */
export function readLoginResult(bytes: Buffer): ReadAnswer<number> {
  return readPair(bytes, LOGIN_VERSION)
}

function readPair(bytes: Buffer, version: number): ReadAnswer<number> {
  if (bytes.length > 0 && bytes[0] !== version) return 'malformed'
  return bytes.length < 2 ? 'incomplete' : { answer: bytes[1]!, bytes: 2 }
}

/** Version, code, 0, and the address that the proxy connects from: of no use, but it has to be read to its end. */
export function readConnectReply(bytes: Buffer): ReadAnswer<number> {
  const [version = VERSION, code, reserved = 0, addressType, nameLength] = bytes
  if (version !== VERSION || reserved !== 0) return 'malformed'
  if (code === undefined || addressType === undefined) return 'incomplete'
  const addressLength = lengthOfAddress(addressType, nameLength)
  if (addressLength === undefined) return 'malformed'
  const length = 4 + addressLength + 2
  return bytes.length < length ? 'incomplete' : { answer: code, bytes: length }
}

function lengthOfAddress(type: number, nameLength = 0): number | undefined {
  if (type === ADDRESS.v4) return 4
  if (type === ADDRESS.v6) return 16
  return type === ADDRESS.name ? 1 + nameLength : undefined
}
