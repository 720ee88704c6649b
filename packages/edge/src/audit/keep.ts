import type { Checkpoint } from '@postern/shared/audit/checkpoint'
import type { Logger } from '@postern/shared/logger'
import type { Kysely } from 'kysely'
import type { EdgeConfig } from '../config/config.ts'
import type { Metrics } from '../metrics.ts'
import type { ChainHead } from '../store/audit-events.ts'
import type { Database } from '../store/schema.ts'
import { keepChain, openChainKeys } from './chain.ts'
import { type AuditLog, openAuditLog } from './record.ts'
import { pruneAuditLog } from './retention.ts'
import { Sinks } from './sinks.ts'

/** The audit of a running edge: its chain, where else it goes, and how long it is kept. */
export interface KeptAudit extends AsyncDisposable {
  log: AuditLog
  /** The name of its chain. */
  chain: string
  /** `ed25519:…`: who signs its checkpoints. */
  signer: string
  /** Events that are not on disk yet. */
  readonly waiting: number
  sinkLags: Sinks['lags']
  /** Deletes from now on what is older than it may be kept. */
  startPruning(): void
}

export interface KeptAuditParts {
  db: Kysely<Database>
  metrics: Metrics
  log: Logger
  /** Epoch milliseconds. */
  clock: () => number
  /** For tests: puts another log in front of the real one. */
  override?: ((audit: AuditLog) => AuditLog) | undefined
}

const PRUNE_EVERY_MS = 60 * 60_000

/** @throws CONFIG_INVALID a key or a sink cannot be used */
export async function keepAudit(
  { dataDir, audit: settings }: Pick<EdgeConfig, 'dataDir' | 'audit'>,
  { db, metrics, log, clock, override }: KeptAuditParts,
): Promise<KeptAudit> {
  await using opened = new AsyncDisposableStack()
  const { id, key, signer } = await openChainKeys(dataDir, settings.checkpointKeyFile)
  const { checkpointRecords: everyRecords, checkpointIntervalMs: everyMs, retentionMs } = settings
  const chain = keepChain({ id, key, everyRecords, everyMs }, clock)
  const sinks = opened.use(new Sinks(settings.sinks, { db, chain: id, log, clock }))
  await sinks.start()
  const onAppended = ({ position }: ChainHead) => sinks.wake(position)
  const onCheckpoint = (checkpoint: Checkpoint) => log.info('audit.checkpoint', { checkpoint })
  const own = opened.use(openAuditLog(db, { chain, clock, onAppended, onCheckpoint }))
  const audit = countingEvents(override?.(own) ?? own, metrics)

  function prune(retentionMs: number): void {
    pruneAuditLog(db, audit, clock() - retentionMs).then(
      (records) => records > 0 && log.info('audit.pruned', { records }),
      (error: unknown) => log.warn('audit.prune_failed', { error }),
    )
  }

  const kept = opened.move()
  return {
    log: audit,
    chain: id,
    signer,
    get waiting() {
      return own.waiting
    },
    sinkLags: () => sinks.lags(),
    startPruning() {
      if (retentionMs === undefined) return
      prune(retentionMs)
      const timer = setInterval(() => prune(retentionMs), PRUNE_EVERY_MS).unref()
      kept.defer(() => clearInterval(timer))
    },
    [Symbol.asyncDispose]: () => kept.disposeAsync(),
  }
}

/** The same audit log, with everything it records in the metrics too. */
function countingEvents(audit: AuditLog, metrics: Metrics): AuditLog {
  return {
    async record(event, row) {
      const since = performance.now()
      try {
        await audit.record(event, row)
      } catch (error) {
        metrics.countUnrecorded()
        throw error
      }
      metrics.countEvent(event, performance.now() - since)
    },
    close: () => audit.close(),
    [Symbol.asyncDispose]: () => audit.close(),
  }
}
