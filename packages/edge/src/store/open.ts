import { randomUUID } from 'node:crypto'
import { describeDiskFailure } from '@postern/shared/disk-failure'
import { PosternError } from '@postern/shared/errors'
import { type Dialect, Kysely } from 'kysely'
import { Migrator } from 'kysely/migration'
import { type ChangeFeed, openChangeFeed } from './change-feed.ts'
import { describeStore, parseStoreLocation, type StoreLocation } from './location.ts'
import * as initial from './migrations/0001-initial.ts'
import * as enrollTokens from './migrations/0002-enroll-tokens.ts'
import * as ssh from './migrations/0003-ssh.ts'
import * as sessionFacts from './migrations/0004-session-facts.ts'
import * as policies from './migrations/0005-policies.ts'
import * as locks from './migrations/0006-locks.ts'
import * as auditChain from './migrations/0007-audit-chain.ts'
import * as auditFlowIndex from './migrations/0008-audit-flow-index.ts'
import * as workloads from './migrations/0009-workloads.ts'
import * as trustedCas from './migrations/0010-trusted-cas.ts'
import * as policyLast from './migrations/0011-policy-last.ts'
import * as acmeFleet from './migrations/0012-acme-fleet.ts'
import * as edgeKeys from './migrations/0013-edge-keys.ts'
import * as serverCertificates from './migrations/0014-server-certificates.ts'
import { nodeSqliteDialect } from './node-sqlite.ts'
import { type ObserveQuery, observing } from './observe.ts'
import { watchOtherWriters } from './other-writers.ts'
import { describePostgresFailure, postgresDialect } from './postgres.ts'
import { purgeExpired } from './purge.ts'
import type { Database } from './schema.ts'

/** The edge's memory: this folder is the only one that knows SQL. It refuses to keep secrets (tokens and cookies
 *  are hashed, what belongs to them is sealed) and to decide anything: it answers what is written. */
export interface Store extends AsyncDisposable {
  /** First parameter of every query of this folder. */
  db: Kysely<Database>
  /** What edges on this store tell each other; undefined where it has one only. */
  changes: ChangeFeed | undefined
  /** Whether a program that is no edge has written to it since this was asked last; undefined where `changes` tells. */
  hasOtherWritten: (() => Promise<boolean>) | undefined
  /** Names of the migrations that opening it has carried out. */
  migrated: readonly string[]
  /** Deletes what nobody can use any more. @returns rows deleted */
  purge(): Promise<number>
  close(): Promise<void>
}

export const MIGRATIONS = {
  '0001-initial': initial,
  '0002-enroll-tokens': enrollTokens,
  '0003-ssh': ssh,
  '0004-session-facts': sessionFacts,
  '0005-policies': policies,
  '0006-locks': locks,
  '0007-audit-chain': auditChain,
  '0008-audit-flow-index': auditFlowIndex,
  '0009-workloads': workloads,
  '0010-trusted-cas': trustedCas,
  '0011-policy-last': policyLast,
  '0012-acme-fleet': acmeFleet,
  '0013-edge-keys': edgeKeys,
  '0014-server-certificates': serverCertificates,
}

/** Opens the database, creating a file and migrating either kind as needed. Several processes may do so at once.
 *  @param location `sqlite:PATH`, a path, or `postgres://…`
 *  @param observe told of each statement, once the store is open
 *  @throws CONFIG_INVALID another kind of database · STATE_INVALID it cannot be opened or migrated */
export async function openStore(
  location: string,
  clock: () => number = Date.now,
  observe?: ObserveQuery,
): Promise<Store> {
  const parsed = parse(location)
  const edge = randomUUID()
  const db = new Kysely<Database>({
    dialect: dialectOf(parsed, edge),
    ...(observe ? { log: observing(observe) } : {}),
  })
  try {
    const migrated = await migrate(db, parsed)
    const close = () => db.destroy()
    const changes = parsed.kind === 'sqlite' ? undefined : openChangeFeed(edge, parsed)
    const hasOtherWritten = parsed.kind === 'sqlite' ? await watchOtherWriters(db) : undefined
    const purge = () => purgeExpired(db, clock())
    return { db, changes, hasOtherWritten, migrated, purge, close, [Symbol.asyncDispose]: close }
  } catch (cause) {
    await db.destroy().catch(() => {})
    throw cannotOpen(location, parsed, cause)
  }
}

function parse(location: string): StoreLocation {
  try {
    return parseStoreLocation(location)
  } catch (error) {
    throw new PosternError('CONFIG_INVALID', `the store ${(error as Error).message}`, {
      hint: 'write store: sqlite:PATH or postgres://USER@HOST/DATABASE, or leave it out to keep it in data_dir',
    })
  }
}

function dialectOf(location: StoreLocation, edge: string): Dialect {
  return location.kind === 'sqlite' ? nodeSqliteDialect(location.path) : postgresDialect(location, { edge })
}

async function migrate(db: Kysely<Database>, location: StoreLocation): Promise<string[]> {
  if (location.kind === 'sqlite') return migrateToLatest(db)
  // whoever comes second waits for the first, however long that takes
  const patient = new Kysely<Database>({ dialect: postgresDialect(location, { statementTimeoutMs: 0 }) })
  try {
    return await migrateToLatest(patient)
  } finally {
    await patient.destroy()
  }
}

async function migrateToLatest(db: Kysely<Database>): Promise<string[]> {
  const migrator = new Migrator({ db, provider: { getMigrations: async () => MIGRATIONS } })
  const { error, results = [] } = await migrator.migrateToLatest()
  if (error) throw error
  return results.map((result) => result.migrationName)
}

function cannotOpen(location: string, { kind }: StoreLocation, cause: unknown): PosternError {
  const [reason, hint] =
    kind === 'sqlite'
      ? [
          describeDiskFailure(cause)?.reason ?? (cause instanceof Error ? cause.message : String(cause)),
          describeDiskFailure(cause)?.hint ??
            'check that the file is a Postern database and that this user may read and write it and its folder',
        ]
      : [
          describePostgresFailure(cause),
          'check that the database runs, its address, user and password, and that the user may create tables in it',
        ]
  return new PosternError(
    'STATE_INVALID',
    `the store ${describeStore(location)} cannot be opened: ${reason}`,
    {
      hint,
      cause,
    },
  )
}
