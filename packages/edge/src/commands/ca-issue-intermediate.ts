import type { Command } from 'commander'
import { openRoot } from '../ca/offline-root.ts'
import { issueIntermediate } from '../ca/rotate.ts'
import { loadConfig } from '../config/load.ts'
import type { ProgramParts } from '../program.ts'
import { requireOwner } from './on-host.ts'
import { configOption, type RootOptions, readRootOptions, rootOptions } from './options.ts'

export function addCaIssueIntermediate(group: Command, parts: ProgramParts): void {
  const command = group
    .command('issue-intermediate')
    .description(
      "have the offline root sign a new CA for the edge's own certificate, in place of the one there is",
    )
    .addOption(configOption())
  for (const option of rootOptions()) command.addOption(option.makeOptionMandatory())
  command
    .addHelpText(
      'after',
      `
People trust the root, so nobody notices. A running edge shows a certificate of the new CA within a second. Take the root's
folder away again afterwards.

Examples:
  $ postern-edge ca issue-intermediate --config /etc/postern-edge/edge.yaml \\
      --offline-root /media/stick/postern-root --root-passphrase-file /media/stick/passphrase`,
    )
    .action(async (options: { config: string } & Required<RootOptions>) => {
      const { dataDir, ca } = loadConfig(options.config)
      await requireOwner(dataDir)
      const { folder, lock } = readRootOptions(options, parts.cwd)
      const root = await openRoot(folder, lock)
      const name = await issueIntermediate(dataDir, root, { now: Date.now(), lock: ca.keyLock })
      parts.stderr.write(`postern-edge: ${name} signs for the edge from now on\n`)
    })
}
