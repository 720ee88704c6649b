import type { LogEvent } from 'kysely'

/** One statement, as it was seen from here: with the time that it waited for a lock, and on the network. */
export interface ObservedQuery {
  operation: StoreOperation
  ms: number
  hasFailed: boolean
}

export type ObserveQuery = (query: ObservedQuery) => void

/** `commit` is where a transaction waits for the disk. */
export type StoreOperation = 'select' | 'insert' | 'update' | 'delete' | 'begin' | 'commit' | 'other'

const OPERATION = /^\s*(select|insert|update|delete|begin|commit)\b/i

/** Kysely's log of statements, without what is in them. */
export function observing(observe: ObserveQuery): (event: LogEvent) => void {
  return ({ level, query, queryDurationMillis: ms }) => {
    const operation = (OPERATION.exec(query.sql)?.[1]?.toLowerCase() ?? 'other') as StoreOperation
    observe({ operation, ms, hasFailed: level === 'error' })
  }
}
