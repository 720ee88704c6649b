import { isIPv4, isIPv6 } from 'node:net'
import { formatDuration, parseDuration } from '@postern/shared/duration'
import { parseEmailAddress, parseEmailDomain } from '@postern/shared/email'
import { parseNetwork } from '../limits/network.ts'
import { parseStoreLocation } from '../store/location.ts'

/** Readers of single values. Each throws an Error whose message goes on after the value: `"x" is not …`. */

/** Leaves room for the longest label in front, and a label needs a wildcard certificate: two parts or more. */
const DOMAIN = /^(?=.{1,189}$)(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z](?:[a-z0-9-]{0,61}[a-z0-9])$/

export function readDomain(text: string): string {
  const domain = text.toLowerCase()
  if (!DOMAIN.test(domain)) throw new Error('is not a domain name of two parts or more')
  return domain
}

export function readListen(text: string): { host: string; port: number } {
  const match = /^(?:\[([^\]]*)\]|([^:[\]]*)):(\d{1,5})$/.exec(text)
  if (!match) throw new Error('is not HOST:PORT, [IPV6]:PORT or :PORT')
  const [, ipv6, name, digits] = match
  const port = Number(digits)
  if (port > 65_535) throw new Error(`has the port ${port}, 65535 is the highest`)
  if (ipv6 !== undefined && !isIPv6(ipv6)) throw new Error('has no IPv6 address in its brackets')
  if (name && !isIPv4(name) && !/^[a-z0-9.-]*[a-z][a-z0-9.-]*$/i.test(name)) {
    throw new Error('has neither an IP address nor a host name')
  }
  return { host: ipv6 ?? name ?? '', port }
}

/** Whose word is taken for where a connection comes from: one address, or a network that is not everybody. */
export function readBalancer(text: string): string {
  const network = withoutCode(() => parseNetwork(text), 'is no address, and no network like 10.0.0.0/24')
  if (/\/0+$/.test(network)) throw new Error('is everybody: whoever connects could say any address')
  return network
}

/** Only addresses that no other machine can reach. */
export function isLoopback(host: string): boolean {
  if (isIPv4(host)) return host.startsWith('127.')
  return host === '::1' || host === 'localhost' || host.endsWith('.localhost')
}

export function readIssuer(text: string): URL {
  const url = URL.canParse(text) ? new URL(text) : undefined
  if (!url || (url.protocol !== 'https:' && url.protocol !== 'http:')) throw new Error('is not an https URL')
  if (url.username || url.password || url.search || url.hash) {
    throw new Error('has more than scheme, host and path (OpenID Connect Discovery §2)')
  }
  if (url.protocol === 'http:' && !isLoopback(url.hostname.replace(/^\[|\]$/g, ''))) {
    throw new Error('is plain http: only a provider on this machine may be')
  }
  return url
}

/** RFC 8555 §6.1: https only, also on this machine. */
export function readAcmeDirectory(text: string): URL {
  const url = URL.canParse(text) ? new URL(text) : undefined
  if (url?.protocol !== 'https:') throw new Error('is not an https URL')
  if (url.username || url.password || url.hash) throw new Error('has more than scheme, host, path and query')
  return url
}

/** A domain, or `*.` and a domain. Whether it is the edge's is not seen here. */
export function readCertificateName(text: string): string {
  const name = text.toLowerCase()
  if (!DOMAIN.test(name.replace(/^\*\./, ''))) throw new Error('is not a domain name, or *. and one')
  return name
}

/** Where audit records are posted. Query and user are refused: what is secret belongs into its own file. */
export function readWebhook(text: string): URL {
  const url = URL.canParse(text) ? new URL(text) : undefined
  if (!url || (url.protocol !== 'https:' && url.protocol !== 'http:')) throw new Error('is not an https URL')
  if (url.username || url.password || url.search || url.hash) {
    throw new Error('has more than scheme, host and path: what is secret belongs into secret_file')
  }
  if (url.protocol === 'http:' && !isLoopback(url.hostname.replace(/^\[|\]$/g, ''))) {
    throw new Error('is plain http: only a receiver on this machine may be')
  }
  return url
}

/** A receiver of syslog: over TLS, or a stream socket of this machine. UDP and plain TCP are refused: one loses records
 *  without a word, the other shows everybody who reached what. */
export function readSyslog(text: string): { path: string } | { host: string; port: number } {
  if (text.startsWith('unix:/')) return { path: text.slice('unix:'.length).replace(/^\/\/+/, '/') }
  const match = /^tls:\/\/(.+)$/.exec(text)
  if (!match) throw new Error('is neither tls://HOST:PORT nor unix:/PATH')
  const { host, port } = readListen(match[1]!)
  if (host === '' || port === 0) throw new Error('is not tls://HOST:PORT')
  return { host, port }
}

/** @param text `sqlite:PATH` or `postgres://…` */
export function readStore(text: string): string {
  const location = parseStoreLocation(text)
  if (location.kind === 'sqlite' && !/^sqlite:/i.test(text)) {
    throw new Error('is neither sqlite:PATH nor postgres://USER@HOST/DATABASE')
  }
  return text
}

/** Milliseconds within the bounds. */
export function durationReader(min: string, max: string): (text: string) => number {
  return (text) => {
    const ms = withoutCode(() => parseDuration(text), 'is not a duration')
    if (ms < parseDuration(min)) throw new Error(`is less than ${min}`)
    if (ms > parseDuration(max)) throw new Error(`is more than ${formatDuration(parseDuration(max))}`)
    return ms
  }
}

export function readEmailDomain(text: string): string {
  return withoutCode(() => parseEmailDomain(text), 'is not an email domain (no @, no *)')
}

export function readEmailAddress(text: string): string {
  return withoutCode(() => parseEmailAddress(text), 'is not an email address')
}

function withoutCode<T>(read: () => T, message: string): T {
  try {
    return read()
  } catch (cause) {
    throw new Error(message, { cause })
  }
}
