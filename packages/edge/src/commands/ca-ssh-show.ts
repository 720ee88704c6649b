import type { Command } from 'commander'
import { generationsOf, readGenerations } from '../ca/generations.ts'
import { loadSshAuthority, openSshAuthorities, type SshGenerationKind } from '../ca/ssh-authorities.ts'
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
Makes the keys when data_dir has none yet, as serve does. During a rotation there are several of a kind, the newest last, and
servers and clients believe all of them.

Examples:
  $ postern-edge ca ssh show --config /etc/postern-edge/edge.yaml`,
    )
    .action(async (options: { config: string; json?: boolean }) => {
      const { ca, dataDir, ssh, domain } = loadConfig(options.config)
      const now = Date.now()
      const { user, host } = await openSshAuthorities(dataDir, ssh.caKeyType, ca.keyLock, now)
      const kinds = await readGenerations(dataDir)
      const readLines = (kind: SshGenerationKind) =>
        Promise.all(
          generationsOf(kinds, kind)
            .trusted(now)
            .map(({ name }) => loadSshAuthority(dataDir, kind, { name, lock: ca.keyLock })),
        ).then((all) => all.map(({ line }) => line))
      const [sshUserCas, sshHostCas] = [await readLines('ssh-user'), await readLines('ssh-host')]
      if (options.json) {
        const answer = { sshUserCa: user.line, sshHostCa: host.line, sshUserCas, sshHostCas }
        parts.stdout.write(`${JSON.stringify(answer, null, 2)}\n`)
        return
      }
      const text = [
        '# users: TrustedUserCAKeys of sshd',
        ...sshUserCas.map((line) => `${line} postern-user-ca`),
        '# hosts: known_hosts of clients',
        ...sshHostCas.map((line) => `@cert-authority *.${domain} ${line}`),
      ]
      parts.stdout.write(`${text.join('\n')}\n`)
    })
}
