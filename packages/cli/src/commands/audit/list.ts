import type { AuditRecord } from '@postern/shared/api/audit'
import type { Command } from 'commander'
import { callSignedIn } from '../../credentials/fresh.ts'
import { stateFolder } from '../../credentials/home.ts'
import { pickEdge } from '../../credentials/known-edge.ts'
import { printJson, printTable, tell } from '../../io.ts'
import { type AskOptions, addAskOptions, loginPolicy } from '../ask.ts'
import { addExamples } from '../examples.ts'
import { parseCount, parseEdgeOrigin } from '../options.ts'

interface AuditOptions extends AskOptions {
  edge?: string
  json?: boolean
  limit?: number
  type?: string
  after?: number
}

/** Members that have a column of their own. */
const COLUMNS = new Set(['seq', 'at', 'type'])

async function runAuditList(options: AuditOptions): Promise<void> {
  const edge = pickEdge(stateFolder(), options.edge)
  const query = new URLSearchParams()
  for (const name of ['limit', 'type', 'after'] as const) {
    if (options[name] !== undefined) query.set(name, String(options[name]))
  }
  const records = await callSignedIn(edge, loginPolicy(options), (api, session) =>
    api.listAudit(session, query),
  )
  if (options.json) {
    for (const record of records) await printJson(record, 0)
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

function describeRecord(record: AuditRecord): string {
  return Object.entries(record)
    .filter(([name, value]) => !COLUMNS.has(name) && value !== null && value !== undefined)
    .map(([name, value]) => `${name}=${typeof value === 'string' ? value : JSON.stringify(value)}`)
    .join(' ')
}

export function addAuditList(parent: Command): void {
  const command = parent
    .command('list')
    .description('show what was decided and done, newest last; for administrators of the edge')
    .option('--limit <count>', 'at most so many records', parseCount)
    .option('--type <type>', 'only this type, flow.decided for example')
    .option('--after <seq>', 'only records after this number', parseCount)
    .option('--edge <url>', 'the edge, when you know several', parseEdgeOrigin)
    .option('--json', 'print one JSON object per line')
  addAskOptions(command).action(runAuditList)
  addExamples(command, [
    ['the last twenty', 'postern audit list --limit 20'],
    ['flow decisions for a program', 'postern audit list --type flow.decided --json'],
  ])
}
