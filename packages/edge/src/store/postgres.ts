import { readFileSync } from 'node:fs'
import type { ConnectionOptions } from 'node:tls'
import { type Dialect, PostgresDialect } from 'kysely'
import type { ClientConfig } from 'pg'
import { EDGE_SETTING } from './changes.ts'
import type { PostgresLocation } from './location.ts'

const MAX_CONNECTIONS = 10
const CONNECT_TIMEOUT_MS = 10_000
/** No statement of ours takes a second. Longer waits hold a request that nobody waits for any more. */
const STATEMENT_TIMEOUT_MS = 30_000
/** A connection that went silent is not kept for the quarter of an hour TCP would take to notice. */
const MAX_CONNECTION_LIFE_SECONDS = 300
const INT8 = 20

/** Kysely's PostgreSQL dialect over `pg`, with a bounded pool. Times are bigint columns and fit a number.
 *  @param options.statementTimeoutMs 0: no limit, for migrations, which wait for each other
 *  @param options.edge whose connections they are, for what edges tell each other */
export function postgresDialect(
  location: PostgresLocation,
  options: { statementTimeoutMs?: number; edge?: string } = {},
): Dialect {
  return new PostgresDialect({
    pool: async () => {
      const { Pool } = await import('pg') // SQLite needs none of it
      const pool = new Pool({
        ...(await clientConfig(location, options)),
        max: MAX_CONNECTIONS,
        maxLifetimeSeconds: MAX_CONNECTION_LIFE_SECONDS,
      })
      // an idle connection was closed from the other side: the pool has dropped it, the next query opens another
      pool.on('error', () => {})
      // the same while it is in use: its query has rejected and the pool drops it, but an error event that nobody
      // listens to would end the process
      pool.on('connect', (client) => client.on('error', () => {}))
      return pool
    },
  })
}

/** How each connection is made, that of the pool and that which listens. */
export async function clientConfig(
  location: PostgresLocation,
  options: { statementTimeoutMs?: number; edge?: string } = {},
): Promise<ClientConfig> {
  const { types } = await import('pg')
  const statementTimeoutMs = options.statementTimeoutMs ?? STATEMENT_TIMEOUT_MS
  const named = options.edge === undefined ? '' : ` -c ${EDGE_SETTING}=${options.edge}`
  return {
    host: location.host,
    port: location.port,
    database: location.database,
    user: location.user,
    ...(location.password === undefined ? {} : { password: location.password }),
    // always said: else PGSSLMODE of the environment would, and that has a mode without verification
    ssl: readTlsOptions(location),
    application_name: 'postern-edge',
    // a flow counts on its record, also where the server is set to answer before it has written
    options: `-c synchronous_commit=on -c default_transaction_isolation=read\\ committed${named}`,
    connectionTimeoutMillis: CONNECT_TIMEOUT_MS,
    keepAlive: true,
    statement_timeout: statementTimeoutMs,
    idle_in_transaction_session_timeout: STATEMENT_TIMEOUT_MS,
    ...(statementTimeoutMs > 0 ? { query_timeout: statementTimeoutMs + 5_000 } : {}),
    types: {
      getTypeParser: ((oid: number, format: 'text' | 'binary') =>
        oid === INT8 ? Number : types.getTypeParser(oid, format as 'text')) as typeof types.getTypeParser,
    },
  }
}

function readTlsOptions({ tls, host }: PostgresLocation): ConnectionOptions | false {
  if (!tls) return false
  const { rootFile, certificateFile, keyFile } = tls
  return {
    rejectUnauthorized: true,
    host,
    ...(rootFile === undefined ? {} : { ca: readFileSync(rootFile, 'utf8') }),
    ...(certificateFile === undefined ? {} : { cert: readFileSync(certificateFile, 'utf8') }),
    ...(keyFile === undefined ? {} : { key: readFileSync(keyFile, 'utf8') }),
  }
}

/** Why a database could not be opened, in words for whoever runs it. */
export function describePostgresFailure(error: unknown): string {
  const { code, message, errors } = error as { code?: unknown; message?: string; errors?: unknown[] }
  if (errors?.length) return describePostgresFailure(errors[0]) // every address of a name was tried
  const reasons: Record<string, string> = {
    ECONNREFUSED: 'nothing answers there',
    ENOENT: 'a file or socket that it names does not exist',
    ENOTFOUND: 'there is no host of that name',
  }
  if (typeof code === 'string' && reasons[code]) return `${reasons[code]} (${code})`
  if (message?.startsWith('SASL') && message.includes('must be a string')) {
    return 'it asks for a password and none was given'
  }
  return message || String(code ?? error)
}
