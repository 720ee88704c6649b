import type { Command } from 'commander'
import { loadConfig } from '../config/load.ts'
import type { ProgramParts } from '../program.ts'
import { describeStore } from '../store/location.ts'
import { openStore } from '../store/open.ts'
import { configOption } from './options.ts'

export function addStoreMigrate(group: Command, parts: ProgramParts): void {
  group
    .command('migrate')
    .description('bring the tables up to date, as serve does when it starts')
    .addOption(configOption())
    .addHelpText(
      'after',
      `
Several may run at once: one does the work. A store that a newer version has changed is refused.

Examples:
  $ postern-edge store migrate --config /etc/postern-edge/edge.yaml`,
    )
    .action(async (options: { config: string }) => {
      const { store: location } = loadConfig(options.config)
      await using store = await openStore(location)
      const done = store.migrated.length > 0 ? store.migrated.join(', ') : 'nothing to do'
      parts.stderr.write(`postern-edge: ${describeStore(location)} is up to date (${done})\n`)
    })
}
