import { PosternError } from '@postern/shared/errors'
import type { ProxyServer } from './choose-proxy.ts'
import type { Place } from './open-tcp.ts'
import { describeProxy, loginRequired, type ProxyTalk, type ReadAnswer } from './proxy-talk.ts'

/** HTTP CONNECT (RFC 9110 §9.3.6), with Basic credentials. */

const MAX_ANSWER_BYTES = 16_384
const MAX_HEADER_LINES = 100
/** 401: what tinyproxy says to a wrong password. */
const LOGIN_REQUIRED: readonly number[] = [407, 401]
const HTTP = 'HTTP/1.'

/** @throws PROXY_LOGIN_REQUIRED · PROXY_REFUSED · what `talk` throws */
export async function askHttpProxy(
  talk: ProxyTalk,
  proxy: ProxyServer,
  { host, port }: Place,
): Promise<void> {
  const authority = `${host}:${port}`
  const { credentials } = proxy
  const lines = [`CONNECT ${authority} HTTP/1.1`, `Host: ${authority}`]
  if (credentials) lines.push(`Proxy-Authorization: Basic ${encode(credentials)}`)
  const status = await talk.ask(Buffer.from(`${lines.join('\r\n')}\r\n\r\n`), readConnectAnswer)
  if (status >= 200 && status < 300) return
  if (LOGIN_REQUIRED.includes(status)) throw loginRequired(proxy)
  throw new PosternError(
    'PROXY_REFUSED',
    `${describeProxy(proxy)} does not connect to ${authority}: it answered ${status}`,
  )
}

function encode({ name, password }: NonNullable<ProxyServer['credentials']>): string {
  return Buffer.from(`${name}:${password}`).toString('base64')
}

/** The status of an answer to CONNECT. Its headers mean nothing here; a page that explains a refusal is not read. */
export function readConnectAnswer(bytes: Buffer): ReadAnswer<number> {
  const beginning = bytes.toString('latin1', 0, HTTP.length)
  if (!HTTP.startsWith(beginning)) return 'malformed'
  const end = bytes.indexOf('\r\n\r\n')
  const length = end + 4
  if ((end < 0 ? bytes.length : length) > MAX_ANSWER_BYTES) return 'malformed'
  if (end < 0) return 'incomplete'
  const lines = bytes.toString('latin1', 0, end).split('\r\n')
  const [, digits] = /^HTTP\/1\.[01] ([2-5]\d\d)(?: |$)/.exec(lines[0]!) ?? []
  if (digits === undefined || lines.length > MAX_HEADER_LINES) return 'malformed'
  const status = Number(digits)
  return { answer: status, bytes: status < 300 ? length : bytes.length }
}
