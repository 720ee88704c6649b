import type { Command } from 'commander'
import { openChainKeys } from '../audit/chain.ts'
import { loadConfig } from '../config/load.ts'
import type { ProgramParts } from '../program.ts'
import { configOption } from './options.ts'

export function addAuditKey(group: Command, parts: ProgramParts): void {
  group
    .command('key')
    .description('print the public key of the audit log’s checkpoints (on stdout), and the name of its chain')
    .addOption(configOption())
    .option('--json', 'print one JSON object')
    .addHelpText(
      'after',
      `
Makes the key when there is none yet, as serve does. Keep what it prints elsewhere: postern audit verify --key takes it.

Examples:
  $ postern-edge audit key --config /etc/postern-edge/edge.yaml`,
    )
    .action(async (options: { config: string; json?: boolean }) => {
      const { dataDir, audit } = loadConfig(options.config)
      const { id, signer } = await openChainKeys(dataDir, audit.checkpointKeyFile)
      if (options.json) parts.stdout.write(`${JSON.stringify({ signer, chain: id }, null, 2)}\n`)
      else parts.stdout.write(`${signer}\n`)
      if (!options.json) parts.stderr.write(`postern-edge: the chain is ${id}\n`)
    })
}
