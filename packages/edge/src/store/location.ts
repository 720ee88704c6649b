import { isIPv4 } from 'node:net'
import { userInfo } from 'node:os'

/** Where a store is: a file of SQLite or a database of PostgreSQL. */
export type StoreLocation = SqliteLocation | PostgresLocation

export interface SqliteLocation {
  kind: 'sqlite'
  path: string
}

export interface PostgresLocation {
  kind: 'postgres'
  /** A name or address, or the folder of a Unix socket. */
  host: string
  port: number
  database: string
  user: string
  /** Undefined: the database asks for none, or it stands in the user's password file. */
  password: string | undefined
  /** With TLS the database's certificate is always checked; undefined is no TLS, on this machine only. */
  tls: { rootFile?: string; certificateFile?: string; keyFile?: string } | undefined
}

const PARAMETERS: ReadonlySet<string> = new Set(['host', 'sslmode', 'sslrootcert', 'sslcert', 'sslkey'])

/** @param text `sqlite:PATH`, a path, or `postgres://USER@HOST:PORT/DATABASE` with the parameters above
 *  @throws Error whose message goes on after the location and never quotes it: it may hold a password */
export function parseStoreLocation(text: string): StoreLocation {
  const scheme = /^[a-z][a-z0-9+.-]+(?=:)/i.exec(text)?.[0].toLowerCase() ?? 'path'
  if (scheme === 'postgres' || scheme === 'postgresql') return parsePostgres(text)
  const path = scheme === 'sqlite' ? text.slice('sqlite:'.length) : text
  if ((scheme !== 'sqlite' && scheme !== 'path') || path === '') {
    throw new Error('is neither sqlite:PATH nor postgres://USER@HOST/DATABASE')
  }
  return { kind: 'sqlite', path }
}

/** As people may see it: without the password. */
export function describeStore(text: string): string {
  const location = parseStoreLocation(text)
  if (location.kind === 'sqlite') return `sqlite:${location.path}`
  const { host, port, database, user } = location
  const place = host.startsWith('/')
    ? `/${encodeURIComponent(database)}?host=${host}`
    : `${host}:${port}/${encodeURIComponent(database)}`
  return `postgres://${encodeURIComponent(user)}@${place}`
}

/** The same location with a password out of a file.
 *  @throws Error as `parseStoreLocation`; also for SQLite, which has none, and when the URL has one already */
export function withPassword(text: string, password: string): string {
  const location = parseStoreLocation(text)
  if (location.kind === 'sqlite') throw new Error('is for postgres:// only')
  if (location.password !== undefined)
    throw new Error('contradicts the password in the URL, remove one of them')
  const url = new URL(text)
  // a URL without a host (a Unix socket) cannot hold a password: there it is the socket's folder that says where
  if (url.hostname === '') url.hostname = 'localhost'
  if (url.username === '') url.username = encodeURIComponent(location.user)
  url.password = encodeURIComponent(password)
  return url.href
}

function parsePostgres(text: string): PostgresLocation {
  if (!URL.canParse(text))
    throw new Error('is not a URL (percent-encode what is special in user and password)')
  const url = new URL(text)
  const parameters = readParameters(url)
  const host = parameters.get('host') ?? url.hostname.replace(/^\[|\]$/g, '')
  if (host === '') throw new Error('has no host')
  const database = decode(url.pathname.slice(1))
  if (database === '' || database.includes('/')) throw new Error('has no database name after the host')
  return {
    kind: 'postgres',
    host,
    port: url.port === '' ? 5_432 : Number(url.port),
    database,
    user: decode(url.username) || userInfo().username,
    password: decode(url.password) || undefined,
    tls: readTls(host, parameters),
  }
}

function readParameters(url: URL): Map<string, string> {
  const parameters = new Map(url.searchParams)
  for (const [name, value] of parameters) {
    if (!PARAMETERS.has(name)) throw new Error(`has the unknown parameter ${JSON.stringify(name)}`)
    if (value === '') throw new Error(`has no value for ${name}`)
    if (name !== 'sslmode' && !value.startsWith('/')) throw new Error(`needs an absolute path for ${name}`)
  }
  if (parameters.size !== [...url.searchParams].length) throw new Error('has a parameter twice')
  return parameters
}

/** libpq's `require` encrypts for whoever answers, so the only mode with TLS is the one that knows who does. */
function readTls(host: string, parameters: ReadonlyMap<string, string>): PostgresLocation['tls'] {
  const isLocal = host.startsWith('/') || isThisMachine(host)
  const mode = parameters.get('sslmode') ?? (isLocal ? 'disable' : 'verify-full')
  if (mode === 'disable') {
    if (!isLocal) throw new Error('leaves this machine without TLS: remove sslmode=disable')
    const file = ['sslrootcert', 'sslcert', 'sslkey'].find((name) => parameters.has(name))
    if (file) throw new Error(`has ${file} but no TLS: add sslmode=verify-full`)
    return undefined
  }
  if (mode !== 'verify-full') {
    throw new Error('has another sslmode than verify-full: the certificate of the database is always checked')
  }
  const [rootFile, certificateFile, keyFile] = ['sslrootcert', 'sslcert', 'sslkey'].map((name) =>
    parameters.get(name),
  )
  if ((certificateFile === undefined) !== (keyFile === undefined)) {
    throw new Error('needs both sslcert and sslkey, or neither')
  }
  return {
    ...(rootFile === undefined ? {} : { rootFile }),
    ...(certificateFile === undefined ? {} : { certificateFile }),
    ...(keyFile === undefined ? {} : { keyFile }),
  }
}

function isThisMachine(host: string): boolean {
  return host === 'localhost' || host === '::1' || (isIPv4(host) && host.startsWith('127.'))
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text)
  } catch {
    throw new Error('has a % that encodes nothing: write %25 for a percent sign')
  }
}
