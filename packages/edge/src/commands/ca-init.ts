import type { Command } from 'commander'
import { createAuthorities, fingerprintOf } from '../ca/authorities.ts'
import { openSshAuthorities } from '../ca/ssh-authorities.ts'
import { loadConfig } from '../config/load.ts'
import type { ProgramParts } from '../program.ts'
import { configOption } from './options.ts'

export function addCaInit(group: Command, parts: ProgramParts): void {
  group
    .command('init')
    .description('make the CAs before the first start, as serve would')
    .addOption(configOption())
    .addHelpText(
      'after',
      `
Their keys are encrypted when ca.key_passphrase_file names a passphrase. Never overwrites any.

Examples:
  $ postern-edge ca init --config /etc/postern-edge/edge.yaml`,
    )
    .action(async (options: { config: string }) => {
      const { dataDir, ca, ssh } = loadConfig(options.config)
      const { edge } = await createAuthorities(dataDir, Date.now(), ca.keyLock)
      await openSshAuthorities(dataDir, ssh.caKeyType, ca.keyLock)
      const how = ca.keyLock ? 'encrypted' : 'not encrypted'
      parts.stderr.write(
        `postern-edge: wrote the CAs to ${dataDir}/ca, ${how}; people trust ${fingerprintOf(edge)}\n`,
      )
    })
}
