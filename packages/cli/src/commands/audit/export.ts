import { formatExportLine } from '@postern/shared/audit/record'
import type { Command } from 'commander'
import { callSignedIn } from '../../credentials/fresh.ts'
import { stateFolder } from '../../credentials/home.ts'
import { pickEdge } from '../../credentials/known-edge.ts'
import { print } from '../../io.ts'
import { type AskOptions, addAskOptions, loginPolicy } from '../ask.ts'
import { addExamples } from '../examples.ts'
import { parseCount, parseEdgeOrigin } from '../options.ts'

interface ExportOptions extends AskOptions {
  edge?: string
  after?: number
  until?: number
}

async function runAuditExport(options: ExportOptions): Promise<void> {
  const edge = pickEdge(stateFolder(), options.edge)
  let last = options.after ?? 0
  for (;;) {
    const query = new URLSearchParams({ after: String(last) })
    if (options.until !== undefined) query.set('until', String(options.until))
    const records = await callSignedIn(edge, loginPolicy(options), (api, session) =>
      api.exportAudit(session, query),
    )
    if (records.length === 0) return
    await print(records.map((record) => `${formatExportLine(record)}\n`).join(''))
    last = records.at(-1)!.seq
  }
}

export function addAuditExport(parent: Command): void {
  const command = parent
    .command('export')
    .description(
      'print the audit log as it was written, one record per line, for postern audit verify; for auditors and administrators',
    )
    .option('--after <seq>', 'only records after this number', parseCount)
    .option('--until <seq>', 'only records up to this number', parseCount)
    .option('--edge <url>', 'the edge, when you know several', parseEdgeOrigin)
  addAskOptions(command).action(runAuditExport)
  addExamples(command, [
    ['everything', 'postern audit export > audit.jsonl'],
    ['what has come since', 'postern audit export --after 120034 >> audit.jsonl'],
  ])
}
