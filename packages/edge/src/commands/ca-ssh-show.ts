import type { Command } from 'commander'
import { openSshAuthorities } from '../ca/ssh-authorities.ts'
import { loadConfig } from '../config/load.ts'
import type { ProgramParts } from '../program.ts'
import { configOption } from './options.ts'

export function addCaSshShow(group: Command, parts: ProgramParts): void {
  group
    .command('show')
    .description('print the public keys of the ssh CAs: for users (ca.pub of sshd) and for hosts')
    .addOption(configOption())
    .option('--json', 'print one JSON object')
    .addHelpText(
      'after',
      `
Makes the keys when data_dir has none yet, as serve does.

Examples:
  $ postern-edge ca ssh show --config /etc/postern-edge/edge.yaml`,
    )
    .action(async (options: { config: string; json?: boolean }) => {
      const { ca, dataDir, ssh, domain } = loadConfig(options.config)
      const { user, host } = await openSshAuthorities(dataDir, ssh.caKeyType, ca.keyLock)
      if (options.json) {
        const answer = { sshUserCa: user.line, sshHostCa: host.line }
        parts.stdout.write(`${JSON.stringify(answer, null, 2)}\n`)
        return
      }
      parts.stdout.write(
        `# users: TrustedUserCAKeys of sshd\n${user.line} postern-user-ca\n` +
          `# hosts: known_hosts of clients\n@cert-authority *.${domain} ${host.line}\n`,
      )
    })
}
