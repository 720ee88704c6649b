import { setTimeout as pause } from 'node:timers/promises'
import type { AuditRecord } from '@postern/shared/api/audit'
import { parseDuration } from '@postern/shared/duration'
import { PosternError } from '@postern/shared/errors'
import type { Command } from 'commander'
import { callSignedIn } from '../../credentials/fresh.ts'
import { stateFolder } from '../../credentials/home.ts'
import { pickEdge } from '../../credentials/known-edge.ts'
import { print, printable, printJson, printTable, tell } from '../../io.ts'
import { type AskOptions, addAskOptions, loginPolicy } from '../ask.ts'
import { addExamples } from '../examples.ts'
import { parseCount, parseEdgeOrigin } from '../options.ts'

interface AuditOptions extends AskOptions {
  edge?: string
  json?: boolean
  follow?: boolean
  limit?: number
  after?: number
  type?: string
  code?: string
  identity?: string
  service?: string
  flow?: string
  since?: number
  until?: number
}

const FILTERS = ['type', 'code', 'identity', 'service', 'flow', 'since', 'until'] as const
const FOLLOW_EVERY_MS = 1_000
/** Members that have a column of their own. */
const COLUMNS = new Set(['seq', 'at', 'type'])

async function runAuditList(options: AuditOptions, takeStopSignal: () => AbortSignal): Promise<void> {
  const edge = pickEdge(stateFolder(), options.edge)
  const list = (query: URLSearchParams) =>
    callSignedIn(edge, loginPolicy(options), (api, session) => api.listAudit(session, query))
  const { after, limit } = options
  const records = await list(toQuery(options, { after, limit }))
  if (options.follow) {
    const newest =
      records.at(-1)?.seq ?? after ?? (await list(new URLSearchParams({ limit: '1' }))).at(-1)?.seq
    for (const record of records) await printRecord(record, options)
    return follow(newest ?? 0, { list, options, signal: takeStopSignal() })
  }
  if (options.json) {
    for (const record of records) await printRecord(record, options)
    return
  }
  if (records.length === 0) return tell('no such records')
  await printTable(
    ['seq', 'time', 'type', 'what'],
    records.map((record) => [
      String(record.seq),
      new Date(record.at).toISOString(),
      record.type,
      describeRecord(record),
    ]),
  )
}

function toQuery(options: AuditOptions, page: { after?: number | undefined; limit?: number | undefined }) {
  const query = new URLSearchParams()
  for (const name of FILTERS) if (options[name] !== undefined) query.set(name, String(options[name]))
  for (const [name, value] of Object.entries(page)) if (value !== undefined) query.set(name, String(value))
  return query
}

interface Following {
  list: (query: URLSearchParams) => Promise<AuditRecord[]>
  options: AuditOptions
  /** Ends it in an orderly way. */
  signal: AbortSignal
}

/** Prints what comes until it is stopped; an edge that is away for a while is waited for. */
async function follow(after: number, { list, options, signal }: Following): Promise<void> {
  let last = after
  let isAway = false
  while (!signal.aborted) {
    try {
      const records = await list(toQuery(options, { after: last, limit: 1_000 }))
      isAway = false
      for (const record of records) await printRecord(record, options)
      last = records.at(-1)?.seq ?? last
      if (records.length === 1_000) continue
    } catch (error) {
      if (signal.aborted) return
      if (!(error instanceof PosternError) || error.exitCode !== 6) throw error
      if (!isAway) tell(`waiting for the edge: ${printable(error.message)}`)
      isAway = true
    }
    await pause(FOLLOW_EVERY_MS, undefined, { signal }).catch(() => {})
  }
}

/** One line; without the widths of a table, which needs all of its rows. */
async function printRecord(record: AuditRecord, { json }: AuditOptions): Promise<void> {
  if (json) return printJson(record, 0)
  const { seq, at, type } = record
  await print(`${printable(`${seq}  ${new Date(at).toISOString()}  ${type}  ${describeRecord(record)}`)}\n`)
}

function describeRecord(record: AuditRecord): string {
  return Object.entries(record)
    .filter(([name, value]) => !COLUMNS.has(name) && value !== null && value !== undefined)
    .map(([name, value]) => `${name}=${typeof value === 'string' ? value : JSON.stringify(value)}`)
    .join(' ')
}

/** @returns epoch milliseconds */
function parseMoment(text: string): number {
  const moment = /^\d+[a-z]+$/.test(text) ? Date.now() - parseDuration(text) : Date.parse(text)
  if (!Number.isNaN(moment)) return Math.max(0, moment)
  throw new PosternError('USAGE_INVALID', `${JSON.stringify(text)} is not a moment`, {
    hint: 'write it as 2026-07-01T18:00:00+02:00, or as 2h for two hours ago',
  })
}

export function addAuditList(parent: Command, takeStopSignal: () => AbortSignal): void {
  const command = parent
    .command('list')
    .description('show what was decided and done, newest last; for auditors and administrators of the edge')
    .option('--limit <count>', 'at most so many records', parseCount)
    .option('--after <seq>', 'only records after this number', parseCount)
    .option('--type <type>', 'only this type, flow.decided for example')
    .option('--code <code>', 'only with this error code, ACCESS_DENIED for example')
    .option('--identity <email>', 'only of this person: an address, or an id; workload:NAME of a program')
    .option('--service <service>', 'only of this service: label, full host, or id')
    .option('--flow <id>', 'only of this flow')
    .option('--since <moment>', 'only from then on: 2026-07-01T18:00:00+02:00, or 2h', parseMoment)
    .option('--until <moment>', 'only before then', parseMoment)
    .option('--follow', 'go on with what comes, until Ctrl-C')
    .option('--edge <url>', 'the edge, when you know several', parseEdgeOrigin)
    .option('--json', 'print one JSON object per line')
  addAskOptions(command).action((options: AuditOptions) => runAuditList(options, takeStopSignal))
  addExamples(command, [
    ['the last twenty', 'postern audit list --limit 20'],
    ['flow decisions for a program', 'postern audit list --type flow.decided --json'],
    ['what one person did since yesterday', 'postern audit list --identity ann@mycorp.com --since 24h'],
    ['watch refusals', 'postern audit list --follow --code ACCESS_DENIED'],
  ])
}
